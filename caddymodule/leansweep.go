package caddymodule

import (
	"sync"
	"time"
)

// leanPause is the longest time between two looks at who does not read.
const leanPause = 5 * time.Second

// leanWriters are all that are open.
var leanWriters leanSweep

// A leanSweep looks at its writers from time to time, as long as there are some.
type leanSweep struct {
	mu      sync.Mutex // guards what follows, and is held while a writer is cut
	writers map[*leanWriter]struct{}
	pause   time.Duration
	timer   *time.Timer // runs while there are writers
}

// add has a writer looked at, if there is a limit to how long it may take.
func (s *leanSweep) add(l *leanWriter) {
	if l.timeout <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.writers) == 0 {
		s.writers = make(map[*leanWriter]struct{})
		s.pause = leanPause
	}
	s.writers[l] = struct{}{}
	if pause := max(l.timeout/4, time.Millisecond); pause < s.pause {
		s.pause = pause
		s.stop()
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.pause, s.sweep)
	}
}

// remove returns when the writer is not used any more: the server forbids that once
// the handler has returned.
func (s *leanSweep) remove(l *leanWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writers, l)
	if len(s.writers) == 0 {
		s.stop()
	}
}

func (s *leanSweep) stop() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

func (s *leanSweep) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for l := range s.writers {
		l.cut(now)
	}
	if s.timer != nil {
		s.timer.Reset(s.pause)
	}
}
