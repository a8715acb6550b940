package caddymodule

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"golang.org/x/time/rate"
)

// Rate bounds how many events a publisher may publish: on the average, and at
// once after a while in which it published fewer. It is a token bucket.
type Rate struct {
	// Events that each publisher may publish in a second. Default: no limit.
	Events float64 `json:"events,omitempty"`

	// Events at once. A request with more is refused for good. Default: what
	// may be published in a second, but at least 1.
	Burst int `json:"burst,omitempty"`
}

func (r *Rate) setUp() error {
	switch {
	case r.Events < 0 || math.IsNaN(r.Events) || math.IsInf(r.Events, 0):
		return fmt.Errorf("rate: events must be a positive number, not %v", r.Events)
	case r.Burst < 0:
		return fmt.Errorf("rate: burst must be at least 1, not %d", r.Burst)
	case r.Burst > 0 && r.Events == 0:
		return fmt.Errorf("rate: burst needs events, the rate itself")
	case r.Burst == 0:
		r.Burst = max(1, int(min(r.Events, math.MaxInt32)))
	}
	return nil
}

// parse reads `rate <events a second> [<burst>]`.
func (r *Rate) parse(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	events, err := strconv.ParseFloat(d.Val(), 64)
	if err != nil || !(events > 0) || math.IsInf(events, 0) {
		return d.Errf("%q is not a number of events a second, such as 100 or 0.5", d.Val())
	}
	r.Events = events
	if d.NextArg() {
		d.Prev()
		return parseCount(d, &r.Burst)
	}
	return nil
}

// maxBuckets is how many publishers are told apart before those are forgotten
// that could publish a whole burst again, as ones that are not known can.
const maxBuckets = 10_000

// buckets are the token buckets of the publishers of an endpoint, by who they are.
type buckets struct {
	rate Rate
	mu   sync.Mutex // guards by
	by   map[string]*rate.Limiter
}

func newBuckets(r Rate) *buckets {
	return &buckets{rate: r, by: make(map[string]*rate.Limiter)}
}

// of returns the bucket of a publisher, nil if there is no limit.
func (b *buckets) of(publisher string) *rate.Limiter {
	if b == nil || b.rate.Events == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.by[publisher]
	if limiter == nil {
		if len(b.by) >= maxBuckets {
			b.forgetFull()
		}
		if len(b.by) >= maxBuckets {
			publisher = "" // those share one
			if limiter = b.by[publisher]; limiter != nil {
				return limiter
			}
		}
		limiter = rate.NewLimiter(rate.Limit(b.rate.Events), b.rate.Burst)
		b.by[publisher] = limiter
	}
	return limiter
}

func (b *buckets) forgetFull() {
	now := time.Now()
	for publisher, limiter := range b.by {
		if limiter.TokensAt(now) >= float64(b.rate.Burst) {
			delete(b.by, publisher)
		}
	}
}

// spend takes events out of the publisher's bucket, or says when they may come.
func (q *requests) spend(events int) error {
	if q.bucket == nil {
		return nil
	}
	if burst := q.bucket.Burst(); events > burst {
		return problemf(http.StatusRequestEntityTooLarge, "%d events at once are more than this endpoint's rate allows, which is %d: send fewer in one request", events, burst)
	}
	// To reserve and cancel would not give back all, where others do the same.
	now := time.Now()
	if q.bucket.AllowN(now, events) {
		return nil
	}
	wait := (float64(events) - q.bucket.TokensAt(now)) / float64(q.bucket.Limit())
	seconds := strconv.Itoa(int(max(1, math.Ceil(wait))))
	return problemf(http.StatusTooManyRequests, "more than %v events a second are published; nothing of this was: try again in %s s", float64(q.bucket.Limit()), seconds).
		with("Retry-After", seconds)
}
