package sse

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// An Entry is one place of the ordered record: an event and its position.
type Entry struct {
	Position Position
	// Time is when the broker took the event. Times never step back.
	Time  time.Time
	Event Event
	// Question takes the place of the event if it is not nil, see
	// [SharedBroker]. It has no position.
	Question *Question
}

// A State tells what a record holds.
type State struct {
	// Oldest is the position behind which every entry is still kept, Newest
	// that of the newest entry there ever was. They are equal if none is
	// kept, and have Seq zero while the record never had an entry.
	Oldest, Newest Position
	// Ended are the channels that are known to have ended, in the order in
	// which they did. The caller owns the slice.
	Ended []Ended
}

// An Ended channel, and the seq of the entry that ended it.
type Ended struct {
	Channel string
	Seq     uint64
}

// A Page is a part of what a record keeps of some channels.
type Page struct {
	// Entries are in the order of the record. The caller owns the slice.
	Entries []Entry
	// Through is the position up to which the page holds all there is of
	// the channels. It is that of the record's newest entry when the page
	// is the last, and behind the position that was asked for otherwise.
	Through Position
}

// ErrClosed is returned by a hub or a broker that has been closed.
var ErrClosed = errors.New("sse: closed")

// ErrUnavailable is matched by the errors of a publish that the broker could
// not take for now. Nothing of it was kept; it may be tried again.
var ErrUnavailable = errors.New("sse: the broker cannot take events now")

// ErrGone is matched by the errors of those who ask for entries that are no
// longer kept, or were never.
var ErrGone = errors.New("sse: entries behind that position are no longer kept")

// An EndedError is returned to those who publish on a channel that has ended.
type EndedError struct {
	// Index is the event's place among those that were published together.
	Index   int
	Channel string
	// At is the position at which the channel ended; zero if that is by an
	// earlier event of the same publish.
	At Position
}

// Error names the channel.
func (e *EndedError) Error() string {
	if e.At.IsZero() {
		return fmt.Sprintf("sse: channel %q is ended by an earlier event of the same publish", e.Channel)
	}
	return fmt.Sprintf("sse: channel %q has ended at %s; nothing can be published on it any more", e.Channel, e.At)
}

// A Broker orders what is published to a hub and keeps it as it promises. The
// record belongs to it; the hub tails it. Package ssetest holds the contract
// as a suite of tests.
//
// Seq is dense from 1 within an epoch, so that a hole is visible. What is kept
// is dense too: a broker gives up its oldest entries, never one in between.
// All methods may be called concurrently.
type Broker interface {
	// Publish appends the events to the record, all or none, in the order
	// given, and returns a position for each. A nil error means that they
	// are ordered and kept as the broker promises. An error means that none
	// was: an [*EndedError] if a channel has ended, else one that matches
	// [ErrUnavailable] when the same publish may succeed later, [ErrClosed],
	// or the context's. The broker may retain the events, which nobody
	// modifies any more; it must not retain the slice.
	//
	// An event whose ID was published within [RepeatWindow] is not appended
	// again; its position is that of the first. The others are neighbours.
	// IDs are kept as the events are: what survives a restart, an ID does.
	//
	// No entry follows that with which a channel ended, as long as the
	// broker knows of it: that is while it keeps the entry, for the newest
	// [MaxEnded] of them at least.
	Publish(ctx context.Context, events []Event) ([]Position, error)

	// Tail hands every entry behind a position of the current epoch to
	// deliver, in order and without a hole: those that are kept, and then
	// each new one. Between the two it calls deliver once without entries,
	// as the sign that it is attached: an event whose Publish is called after
	// that sign has reached deliver when its Publish returns, if the broker
	// lives in this process, and soon after otherwise.
	//
	// It never calls deliver concurrently, and not after it has returned.
	// The callee must not block and must not call the broker; it may
	// retain the entries' events, not the slice. Tail returns when ctx is done or
	// the record cannot be followed any further, with the reason, which
	// matches [ErrGone] if entries behind the position are not kept; the
	// caller tails again from where it is.
	Tail(ctx context.Context, after Position, deliver func([]Entry)) error

	// Read returns entries behind a position that are on any of the
	// channels, which are names and prefix patterns: those that follow it
	// directly, about as many as hold that many bytes of data, but at least
	// one if there is one. It may return fewer, even none; reading goes on
	// behind [Page.Through]. The zero Position stands before the oldest
	// entry that is kept.
	//
	// The error matches [ErrGone] if the position is of another epoch or
	// entries behind it, on whichever channel, are no longer kept: a page
	// never hides a hole.
	Read(ctx context.Context, after Position, channels []string, bytes int) (Page, error)

	// Count returns how many entries Read would return in all, those on
	// several of the channels counted once, but no more than limit: it need
	// not look any further. Its errors are those of Read.
	Count(ctx context.Context, after Position, channels []string, limit int) (int, error)

	// State returns what the record holds now.
	State(ctx context.Context) (State, error)

	// Health returns nil while the broker can take events as far as it
	// knows, else the reason why it cannot. A broker that could not take
	// some finds out by itself when it can again. It does not block.
	Health() error

	// Close releases what the broker holds and ends every Tail. When it
	// returns, deliver is not called any more. Everything else fails with
	// [ErrClosed] afterwards. It may be called again.
	Close() error
}
