package sse

// Slow says what becomes of a stream whose client reads too slowly: one that lags
// behind more than [StreamOptions.Lag], or whose next events are no longer kept.
type Slow uint8

const (
	// SlowReset skips the stream ahead to the newest event, and tells its
	// client by hub:reset which channels lost something. It is the default.
	SlowReset Slow = iota
	// SlowDisconnect ends the stream, by hub:close with the reason
	// [CloseSlow]. Its client comes back with its last id, and gets what it
	// missed as any other does.
	SlowDisconnect
)

// maxLag returns how many bytes the stream may lag behind, zero if any number.
func (s *Subscriber) maxLag() int64 {
	return max(s.tuning.Load().Lag, 0)
}

// disconnects reports whether the stream is to end rather than to be reset.
func (s *Subscriber) disconnects() bool {
	return s.main().tuning.Load().Slow == SlowDisconnect
}

// tooFar reports whether the stream lags behind too far, where at least that many
// bytes are to come: only if these are too many it is looked at closely.
func (s *Subscriber) tooFar(bytes int64) bool {
	most := s.maxLag()
	return most > 0 && bytes > most && s.lag(s.work) > most
}

// lag returns how many bytes of the channels were published since the stream was
// opened, and have not been given to it. An event on several of them counts for
// each.
func (s *Subscriber) lag(channels []*channel) (bytes int64) {
	for _, ch := range channels {
		bytes += ch.bytesAfter(max(s.after(ch), s.opened))
	}
	return bytes
}

// skipAhead gives up all that the stream has not been given.
func (s *Subscriber) skipAhead() batch { return s.resetBehind(s.hub.limitResets) }

// lagsBehind is tooFar for a stream that is behind.
func (s *Subscriber) lagsBehind() bool {
	most := s.maxLag()
	if most == 0 {
		return false
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.lag(s.hub.news(s)) > most
}

// lagging reports whether the stream lags behind too far. It is for an engine that
// does not pull, because the client does not read, and is called as pull is: by
// the engine alone.
func (s *Subscriber) lagging() bool {
	if s.maxLag() == 0 {
		return false
	}
	if _, _, closing := s.look(); closing != "" {
		return false
	}
	if s.behind {
		return s.lagsBehind()
	}
	s.work = distinct(s.work)
	return s.lag(s.work) > s.maxLag()
}
