package sse

import (
	"math/rand/v2"
	"time"
)

// The timers of the stream engine: the keepalive, which its goroutine waits for,
// and the greatest age, which ends the stream even while it writes.

func (st *stream) startTimers() {
	st.opened = time.Now()
	st.written = st.opened
	st.keepalive = time.NewTimer(DefaultKeepalive)
	st.options = st.tuning.Load()
	st.setKeepalive(keepaliveAfter(st.options.Keepalive))
	st.setAge(less(st.options.MaxAge, 10))
}

func (st *stream) stopTimers() {
	st.keepalive.Stop()
	st.setAge(0)
}

// retune takes on settings that have changed.
func (st *stream) retune() {
	before, options := st.options, st.tuning.Load()
	if options == before {
		return
	}
	st.options = options
	if options.Keepalive != before.Keepalive {
		st.setKeepalive(keepaliveAfter(options.Keepalive))
	}
	if options.MaxAge != before.MaxAge {
		left := less(options.MaxAge, 10) - time.Since(st.opened)
		if options.MaxAge > 0 && left <= 0 { // it is not the only one, and they must not all end at once
			left = options.MaxAge - less(options.MaxAge, 10) + 1
		}
		st.setAge(left)
	}
}

// setKeepalive has the next keepalive sent when that long nothing was written. If
// it is not positive, none will be.
func (st *stream) setKeepalive(period time.Duration) {
	if period <= 0 {
		st.keepalive.Stop()
		return
	}
	st.keepalive.Reset(period - time.Since(st.written))
}

// keepAlive breaks the silence if it has been long enough.
func (st *stream) keepAlive() {
	period := keepaliveAfter(st.options.Keepalive)
	if time.Since(st.written) >= period {
		st.write(st.subscriber.keepaliveFrame(), 0)
		st.flush()
	}
	st.setKeepalive(period)
}

// setAge has the stream end after that time, or never if it is not positive.
func (st *stream) setAge(left time.Duration) {
	if st.age != nil {
		st.age.Stop()
		st.age = nil
	}
	if left > 0 {
		st.age = time.AfterFunc(left, func() { st.subscriber.Close(CloseExpired) })
	}
}

func keepaliveAfter(d time.Duration) time.Duration {
	if d == 0 {
		d = DefaultKeepalive
	}
	return less(d, 4)
}

// less takes up to the part-th part of a positive d off at random.
func less(d time.Duration, part int64) time.Duration {
	if d <= 0 {
		return d
	}
	return d - time.Duration(rand.Int64N(int64(d)/part+1))
}
