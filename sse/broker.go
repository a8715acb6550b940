package sse

import (
	"context"
	"errors"
	"time"
)

// An Entry is one place of the ordered record: an event and its position.
type Entry struct {
	Position Position
	// Time is when the broker took the event.
	Time  time.Time
	Event Event
}

// ErrClosed is returned by a hub or a broker that has been closed.
var ErrClosed = errors.New("sse: closed")

// ErrUnavailable is matched by the errors of a publish that the broker could
// not take for now. Nothing of it was kept; it may be tried again.
var ErrUnavailable = errors.New("sse: the broker cannot take events now")

// A Broker orders what is published to a hub and keeps it as it promises. The
// record belongs to it; the hub tails it.
//
// Seq is dense from 1 within an epoch, so that a hole is visible. All methods
// may be called concurrently.
type Broker interface {
	// Publish appends the events to the record, all or none, as
	// neighbours, and returns their positions in the order given. A nil
	// error means that they are ordered and kept as the broker promises.
	// An error means that none was, and matches [ErrUnavailable] when the
	// same publish may succeed later. The broker may retain the events, which
	// nobody modifies any more; it must not retain the slice.
	Publish(ctx context.Context, events []Event) ([]Position, error)

	// Tail hands every entry after a position of the current epoch to
	// deliver, in order and without a hole: first those that are kept,
	// then each new one. It calls deliver once at the start, with no
	// entries if there are none, as the sign that it is attached: an
	// event whose Publish is called after that sign reaches deliver.
	//
	// It never calls deliver concurrently, and not after it has returned.
	// The callee must not block and must not call the broker; it may
	// retain the entries' events, not the slice. Tail returns when ctx is done or
	// the record cannot be followed any further, with the reason; the
	// caller tails again from where it is.
	Tail(ctx context.Context, after Position, deliver func([]Entry)) error

	// Position returns the position of the newest entry, with Seq zero
	// when the record is empty.
	Position(ctx context.Context) (Position, error)

	// Close releases what the broker holds and ends every Tail. Publishing
	// fails with [ErrClosed] afterwards.
	Close() error
}
