package ssetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A ViolationKind is a way to break a promise.
type ViolationKind string

// The ways to break the promises.
const (
	Lost           ViolationKind = "lost"            // acknowledged, and not delivered
	Missing        ViolationKind = "missing"         // not delivered, while another subscriber got it
	Doubled        ViolationKind = "doubled"         // delivered again, or published once at two positions
	Reordered      ViolationKind = "reordered"       // ids do not rise
	Unannounced    ViolationKind = "unannounced"     // the record changed without a reset
	Phantom        ViolationKind = "phantom"         // published by nobody, or not so, or refused, or not for this subscriber
	WrongPosition  ViolationKind = "wrong position"  // acknowledged with another position than it has
	SharedPosition ViolationKind = "shared position" // two events have it
	Overtaken      ViolationKind = "overtaken"       // acknowledged before another began, and ordered behind it
	NotGranted     ViolationKind = "not granted"     // published when it had been taken away from this subscriber
	AfterEnd       ViolationKind = "after the end"   // on a channel that has ended, or an end that is none
	NeedlessReset  ViolationKind = "needless reset"  // of what cannot be missing
	RecordLost     ViolationKind = "record lost"     // a durable record began anew
	Malformed      ViolationKind = "malformed"       // not as the protocol has it
)

// A Violation is a promise that was broken.
type Violation struct {
	Kind ViolationKind
	// Text says what happened, and to whom.
	Text string
	// Context is what the subscriber saw around it, a line each. It may be
	// empty.
	Context string
}

// String returns all of it.
func (v Violation) String() string {
	return strings.TrimRight(fmt.Sprintf("%s: %s\n%s", v.Kind, v.Text, v.Context), "\n")
}

// A Report is what a check found.
type Report struct {
	// Violations are the first ones of each kind, up to a hundred.
	Violations []Violation
	// Counts are all of them.
	Counts map[ViolationKind]int

	Acknowledged int // events
	Unknown      int // events that were never acknowledged but may have been kept
	Refused      int // attempts
	Deliveries   int // events that subscribers got
	Connections  int // streams that were opened
	Lagged       int // resets within a stream
	Resumes      map[sse.Resume]int
	Resets       map[sse.ResetReason]int // of names and patterns
	// Needless are resets of names and patterns of which nothing is known
	// to be missing. They are allowed: a server may forget what it had.
	Needless int
	Epochs   int
}

// maxReported bounds the violations of each kind.
const maxReported = 100

func (r *Report) add(v Violation) {
	r.Counts[v.Kind]++
	if r.Counts[v.Kind] <= maxReported {
		r.Violations = append(r.Violations, v)
	}
}

// Sum returns the number of violations.
func (r *Report) Sum() (sum int) {
	for _, n := range r.Counts {
		sum += n
	}
	return sum
}

// String returns the numbers, a line each.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "events: %d acknowledged, %d unknown; %d attempts refused\n", r.Acknowledged, r.Unknown, r.Refused)
	fmt.Fprintf(&b, "deliveries checked: %d, of %d streams, %d epochs\n", r.Deliveries, r.Connections, r.Epochs)
	fmt.Fprintf(&b, "streams began: %s\n", numbers(r.Resumes))
	fmt.Fprintf(&b, "resets: %s; %d within a stream, %d of nothing that is known\n", numbers(r.Resets), r.Lagged, r.Needless)
	fmt.Fprintf(&b, "violations: %d", r.Sum())
	if r.Sum() > 0 {
		fmt.Fprintf(&b, " (%s)", numbers(r.Counts))
	}
	return b.String()
}

func numbers[K ~string](counts map[K]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// around is how much of what was seen before and after a place is shown.
const around = 4

// context shows what a connection saw around an index of its sightings.
func (c *HistoryConnection) context(index int) string {
	var b strings.Builder
	h := c.subscriber.history
	fmt.Fprintf(&b, "\tasked for %q, presented %q\n", c.subscriber.asked, c.since)
	for _, p := range c.parts {
		if p.first <= index+around {
			fmt.Fprintf(&b, "\t%d: resume %q at %s, resets %v\n", p.first, p.resume, h.position(p.at), p.resets)
		}
	}
	for i := max(0, index-around); i < min(len(c.seen), index+around); i++ {
		s := c.seen[i]
		at := h.position(place{c.epochAt(i), s.seq})
		if s.number == 0 {
			fmt.Fprintf(&b, "\t%d: %s, no event\n", i, at)
			continue
		}
		fmt.Fprintf(&b, "\t%d: %s, %s\n", i, at, h.describe(s.number))
	}
	fmt.Fprintf(&b, "\tof %d; ended by: %s\n", len(c.seen), c.closing)
	return b.String()
}

func (c *HistoryConnection) epochAt(index int) (epoch int) {
	for _, p := range c.parts {
		if p.first <= index {
			epoch = p.at.epoch
		}
	}
	return epoch
}

// describe tells what is known of an event.
func (h *History) describe(number uint32) string {
	e := &h.published[number]
	outcome := "not acknowledged"
	if e.acked {
		outcome = "acknowledged"
	}
	return fmt.Sprintf("event %d on %q (%s)", number, h.sets[e.set], outcome)
}
