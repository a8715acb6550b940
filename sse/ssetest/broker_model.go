package ssetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

var (
	modelChannels = []string{"a", "ab", "abc", "b", "b/1", "b/2", "ü", "üx", "stocks-ACME"}
	modelPatterns = []string{"a*", "ab*", "abcd*", "b*", "b/*", "ü*", "stocks-*", "nothing", "nothing*", "*"}
)

// A recordModel is what the record should be after random publishes. It is as
// simple as it can be: a list.
type recordModel struct {
	*rand.Rand
	events []sse.Event // the record
	ids    map[string]uint64
	ended  map[string]uint64
}

func newModel(r *rand.Rand) *recordModel {
	return &recordModel{Rand: r, ids: make(map[string]uint64), ended: make(map[string]uint64)}
}

// event returns an event that may be a repeat, may end its channels, and may
// come too late for one.
func (m *recordModel) event() sse.Event {
	e := sse.Event{Data: strings.Repeat("x", m.IntN(1+m.IntN(300))) + fmt.Sprint(len(m.events))}
	names := m.Perm(len(modelChannels))
	for _, n := range names[:1+m.IntN(3)] {
		e.Channels = append(e.Channels, modelChannels[n])
	}
	switch m.IntN(12) {
	case 0: // a channel of its own that ends
		e.Channels = append(e.Channels, fmt.Sprintf("b/end-%d", m.IntN(40)))
		e.End = sse.EndAfter
		e.Channels = e.Channels[len(e.Channels)-1:]
	case 1:
		e.Channels = append(e.Channels, fmt.Sprintf("b/end-%d", m.IntN(40)))
	case 2, 3, 4:
		e.ID = fmt.Sprintf("id-%d", m.IntN(200))
	}
	return e
}

// publish publishes an array of random events and holds the answer to the model.
func (m *recordModel) publish(t *trial) {
	t.Helper()
	events := make([]sse.Event, 1+m.IntN(6))
	for i := range events {
		events[i] = m.event()
	}
	want, tooLate := m.order(events)
	positions, err := t.broker.Publish(t.Context(), events)
	ended, ok := errors.AsType[*sse.EndedError](err)
	switch {
	case tooLate >= 0 && (!ok || ended.Index != tooLate):
		t.Fatalf("error is %v, not that event %d of\n%+v\ncomes too late", err, tooLate, events)
	case tooLate >= 0:
		return
	case err != nil:
		t.Fatalf("Publish: %v", err)
	case len(positions) != len(want):
		t.Fatalf("Publish returned %d positions for %d events", len(positions), len(want))
	}
	for i, seq := range want {
		if positions[i] != t.at(seq) {
			t.Fatalf("event %d is at %s, not at %d", i, positions[i], seq)
		}
		e := events[i]
		if seq <= uint64(len(m.events)) {
			continue
		}
		m.events = append(m.events, e)
		if e.ID != "" {
			m.ids[e.ID] = seq
		}
		if e.End != sse.EndNone {
			for _, name := range e.Channels {
				m.ended[name] = seq
			}
		}
	}
}

// order returns the seq that each event should get, or the index of the first
// that comes too late for its channel, which is negative if none does.
func (m *recordModel) order(events []sse.Event) (seqs []uint64, tooLate int) {
	next := uint64(len(m.events))
	fresh, ending := make(map[string]uint64), make(map[string]bool)
	for i, e := range events {
		seq := max(m.ids[e.ID], fresh[e.ID])
		if e.ID == "" || seq == 0 {
			next++
			seq = next
			for _, name := range e.Channels {
				if m.ended[name] > 0 || ending[name] {
					return nil, i
				}
			}
			for _, name := range e.Channels {
				ending[name] = e.End != sse.EndNone
			}
			if e.ID != "" {
				fresh[e.ID] = seq
			}
		}
		seqs = append(seqs, seq)
	}
	return seqs, -1
}

// channels returns names and patterns to be asked for.
func (m *recordModel) channels() []string {
	var asked []string
	for range 1 + m.IntN(4) {
		if m.IntN(2) == 0 {
			asked = append(asked, modelChannels[m.IntN(len(modelChannels))])
		} else {
			asked = append(asked, modelPatterns[m.IntN(len(modelPatterns))])
		}
	}
	return asked
}

// ask asks for something at random, and holds the answer to the record.
func (m *recordModel) ask(t *trial, record []sse.Entry) {
	t.Helper()
	state := t.state()
	after := t.at(m.Uint64N(state.Newest.Seq + 1))
	if m.IntN(4) == 0 {
		after = sse.Position{}
	}
	t.compareWith(record, after, m.channels(), pageSizes[m.IntN(len(pageSizes))], m.IntN(2*len(record)+2))
	if !after.IsZero() {
		t.tailWith(record, after)
	}
}

func model(t *trial) {
	t.open(Retention{})
	m := newModel(t.random())
	for round := range lasting(12, 100) {
		for range 6 {
			m.publish(t)
		}
		if t.config.Promise >= KeepsAfterClose && round%5 == 4 {
			t.reopen(Retention{})
		}
		record := t.expect(m.events)
		for range 15 {
			m.ask(t, record)
		}
		var ended []sse.Ended
		for name, seq := range m.ended {
			ended = append(ended, sse.Ended{Channel: name, Seq: seq})
		}
		t.hasEnded(ended...)
	}
}
