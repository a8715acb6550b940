package caddymodule

import (
	"log/slog"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// recoverPause is the time between two attempts to make a hub.
const recoverPause = time.Second

// watch replaces the hub whenever its record was lost, until no configuration has it
// any more. The clients of the one before come back to the new one, which tells them
// what they may have missed; they do so over the time of a drain, and not as one crowd.
func (l *liveHub) watch() {
	for {
		before := l.current()
		select {
		case <-before.Lost():
		case <-l.gone.Done():
			return
		}
		if !l.replace() {
			return
		}
		l.running.Go(func() { l.leave(before) }) // the next one may be lost meanwhile
	}
}

// replace makes another hub on the same broker, as soon as that can be. It reports
// false if nobody needs one any more.
func (l *liveHub) replace() (done bool) {
	for {
		options, _ := l.settings()
		hub, err := sse.NewHub(l.gone, l.broker, options)
		if err == nil {
			options.Logger.Error("the record of the hub was lost; its streams are told so")
			l.hub.Store(hub)
			options, _ := l.settings() // which may have changed meanwhile
			hub.SetOptions(options)
			return true
		}
		options.Logger.Error("the record of the hub was lost, and no other can be had yet", slog.Any("error", err))
		select {
		case <-time.After(recoverPause):
		case <-l.gone.Done():
			return false
		}
	}
}

// leave ends a hub and its streams.
func (l *liveHub) leave(hub *sse.Hub) {
	_, over := l.settings()
	hub.Drain(l.gone, over)
	hub.Close()
}

// settings returns those of the configuration in force.
func (l *liveHub) settings() (options sse.Options, drain time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.options, l.drainTime
}
