package ssetest_test

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A faulty broker is a journal of which a fault has replaced a method.
type faulty struct {
	*journal
	publish func(context.Context, []sse.Event) ([]sse.Position, error)
	tail    func(context.Context, sse.Position, func([]sse.Entry)) error
	read    func(context.Context, sse.Position, []string, int) (sse.Page, error)
	count   func(context.Context, sse.Position, []string, int) (int, error)
	state   func(context.Context) (sse.State, error)
	health  func() error
	close   func() error
	retain  func(ssetest.Retention) error
}

func newFaulty(j *journal, fault func(*faulty)) *faulty {
	f := &faulty{
		journal: j, publish: j.Publish, tail: j.Tail, read: j.Read, count: j.Count,
		state: j.State, health: j.Health, close: j.Close, retain: j.setRetention,
	}
	fault(f)
	return f
}

func (f *faulty) Publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	return f.publish(ctx, events)
}

func (f *faulty) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	return f.tail(ctx, after, deliver)
}

func (f *faulty) Read(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
	return f.read(ctx, after, channels, bytes)
}

func (f *faulty) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	return f.count(ctx, after, channels, limit)
}

func (f *faulty) State(ctx context.Context) (sse.State, error) { return f.state(ctx) }
func (f *faulty) Health() error                                { return f.health() }
func (f *faulty) Close() error                                 { return f.close() }

// entries makes the broker change each entry that it hands out.
func (f *faulty) entries(change func(*sse.Entry)) {
	changed := func(entries []sse.Entry) []sse.Entry {
		entries = append([]sse.Entry(nil), entries...)
		for i := range entries {
			change(&entries[i])
		}
		return entries
	}
	f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
		page, err := f.journal.Read(ctx, after, channels, bytes)
		page.Entries = changed(page.Entries)
		return page, err
	}
	f.delivers(func(deliver func([]sse.Entry), entries []sse.Entry) { deliver(changed(entries)) })
}

// events makes the broker take other events than were published.
func (f *faulty) events(change func(i int, e *sse.Event)) {
	f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
		events = append([]sse.Event(nil), events...)
		for i := range events {
			change(i, &events[i])
		}
		return f.journal.Publish(ctx, events)
	}
}

// delivers makes the broker call a tail's deliver in another way.
func (f *faulty) delivers(how func(deliver func([]sse.Entry), entries []sse.Entry)) {
	f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
		return f.journal.Tail(ctx, after, func(entries []sse.Entry) { how(deliver, entries) })
	}
}

// refuses makes the broker change the error of a publish that came too late.
func (f *faulty) refuses(change func(*sse.EndedError)) {
	f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
		positions, err := f.journal.Publish(ctx, events)
		if e, ok := err.(*sse.EndedError); ok {
			change(e)
		}
		return positions, err
	}
}

// A verdict is the testing.TB of a case that should fail: it keeps what the
// case says to itself.
type verdict struct {
	testing.TB
	mu     sync.Mutex // guards what follows
	failed bool
	text   strings.Builder
}

func (v *verdict) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(&v.text, format+"\n", args...)
}

func (v *verdict) Fail() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = true
}

func (v *verdict) FailNow() {
	v.Fail()
	runtime.Goexit()
}

func (v *verdict) Failed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

func (v *verdict) said() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.String()
}

func (v *verdict) Helper()                           {}
func (v *verdict) Log(args ...any)                   { v.say("%s", fmt.Sprint(args...)) }
func (v *verdict) Logf(format string, args ...any)   { v.say(format, args...) }
func (v *verdict) Error(args ...any)                 { v.Log(args...); v.Fail() }
func (v *verdict) Errorf(format string, args ...any) { v.say(format, args...); v.Fail() }
func (v *verdict) Fatal(args ...any)                 { v.Log(args...); v.FailNow() }
func (v *verdict) Fatalf(format string, args ...any) { v.say(format, args...); v.FailNow() }

// The suite can fail: it finds each of these faults, in the case that is about
// it, and tells what is wrong.
func TestRunBrokerFindsFaults(t *testing.T) {
	for _, fault := range faults() {
		t.Run(strings.ReplaceAll(fault.name, " ", "_"), func(t *testing.T) {
			config := journalConfig()
			config.Open = func(place string, keep ssetest.Retention) (sse.Broker, error) {
				if fault.opens != nil {
					fault.opens(place)
				}
				j, err := openJournal(place, keep)
				if err != nil {
					return nil, err
				}
				return newFaulty(j, fault.inject), nil
			}
			config.SetRetention = func(b sse.Broker, keep ssetest.Retention) error { return b.(*faulty).retain(keep) }
			var v *verdict
			ssetest.TryBroker(t, config, fault.found, time.Second, func(t *testing.T) testing.TB {
				v = &verdict{TB: t}
				return v
			})
			switch {
			case v == nil: // the process that is killed, which does not come here
			case !v.Failed():
				t.Errorf("%s passes a broker that %s; it said\n%s", fault.found, fault.name, v.said())
			case !regexp.MustCompile(fault.says).MatchString(v.said()):
				t.Errorf("%s fails a broker that %s, and does not say %q:\n%s", fault.found, fault.name, fault.says, v.said())
			}
		})
	}
}
