package sse

import (
	"fmt"
	"strconv"
	"strings"
)

// A Start says where in the record a subscriber begins. The zero value is
// [Latest].
type Start struct {
	kind  startKind
	after Position
	// fill says how far a client had come in a backfill when it lost its
	// stream. Its number is zero if it was in none.
	fill fillCursor
}

// A fillCursor is a place in the backfill of a change.
type fillCursor struct {
	number  uint64 // of the change, from 1
	through uint64 // the seq up to which its events were received
}

type startKind int

const (
	startLatest startKind = iota
	startEarliest
	startAfter
	startUnknown
)

// Latest begins with the next event.
func Latest() Start { return Start{} }

// Earliest replays all that is kept, unless that is more than ReplayLimit.
func Earliest() Start { return Start{kind: startEarliest} }

// Unknown is where one is who presents something that is no position of any
// hub. Everything that it subscribes to is reset.
func Unknown() Start { return Start{kind: startUnknown} }

// After resumes behind a position that was received before.
func After(at Position) Start { return Start{kind: startAfter, after: at} }

// ParseStart reads the last id that a client received. That is a position; or,
// while the events of channels are sent that it added with a start in the past,
// <epoch>.<seq>-<n>-<seq>: all up to the first seq, and what its n-th change
// added up to the second. The error matches [ErrPosition].
func ParseStart(id string) (Start, error) {
	position, fill, isFill := strings.Cut(id, "-")
	at, err := ParsePosition(position)
	if err != nil {
		return Start{}, fmt.Errorf("%.64q is %w", id, ErrPosition)
	}
	start := After(at)
	if !isFill {
		return start, nil
	}
	number, through, _ := strings.Cut(fill, "-")
	var ok1, ok2 bool
	start.fill.number, ok1 = parseSeq(number)
	start.fill.through, ok2 = parseSeq(through)
	if !ok1 || !ok2 || start.fill.number == 0 || start.fill.through > at.Seq {
		return Start{}, fmt.Errorf("%.64q is %w", id, ErrPosition)
	}
	return start, nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Start) MarshalText() ([]byte, error) {
	switch s.kind {
	case startEarliest:
		return []byte("earliest"), nil
	case startUnknown:
		return []byte("unknown"), nil
	case startAfter:
		if s.fill.number > 0 {
			return appendFillID(nil, s.after, s.fill), nil
		}
		return s.after.AppendTo(nil), nil
	case startLatest:
	}
	return []byte("latest"), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. The error is that of [ParseStart].
func (s *Start) UnmarshalText(text []byte) (err error) {
	switch string(text) {
	case "latest":
		*s = Latest()
	case "earliest":
		*s = Earliest()
	case "unknown":
		*s = Unknown()
	default:
		*s, err = ParseStart(string(text))
	}
	return err
}

// appendFillID appends the id of a place in a backfill, as ParseStart reads it.
func appendFillID(b []byte, at Position, fill fillCursor) []byte {
	b = at.AppendTo(b)
	b = strconv.AppendUint(append(b, '-'), fill.number, 10)
	return strconv.AppendUint(append(b, '-'), fill.through, 10)
}
