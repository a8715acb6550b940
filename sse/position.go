package sse

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// A Position is a place in a hub's ordered record, written <epoch>.<seq> on
// the wire, where it is the id of the event at that place.
//
// The zero value is no position; see [Position.IsZero].
type Position struct {
	// Epoch names one life of the record. Positions of different epochs
	// cannot be compared: the record began anew in between.
	Epoch string
	// Seq counts the events of the epoch, from 1. Zero stands before the
	// first event.
	Seq uint64
}

// maxEpoch bounds the length of an epoch, in bytes.
const maxEpoch = 32

// ErrPosition is matched by the errors of [ParsePosition].
var ErrPosition = errors.New("not a position (<epoch>.<seq>, as in 5t9k2.1842)")

// ParsePosition reads a position as [Position.String] writes it. There is one
// spelling of each position: a seq has no sign and no leading zeros.
func ParsePosition(s string) (Position, error) {
	epoch, digits, found := strings.Cut(s, ".")
	if !found || !validEpoch(epoch) {
		return Position{}, fmt.Errorf("%.64q is %w", s, ErrPosition)
	}
	seq, ok := parseSeq(digits)
	if !ok {
		return Position{}, fmt.Errorf("%.64q is %w", s, ErrPosition)
	}
	return Position{Epoch: epoch, Seq: seq}, nil
}

func parseSeq(digits string) (seq uint64, ok bool) {
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil && digits[0] != '+' && (digits[0] != '0' || len(digits) == 1)
}

// String returns the position as it stands on the wire.
func (p Position) String() string {
	return string(p.AppendTo(nil))
}

// AppendTo appends the position, as it stands on the wire, to b.
func (p Position) AppendTo(b []byte) []byte {
	b = append(b, p.Epoch...)
	b = append(b, '.')
	return strconv.AppendUint(b, p.Seq, 10)
}

// IsZero reports whether p is no position at all.
func (p Position) IsZero() bool { return p == Position{} }

// MarshalText writes the position as it stands on the wire.
func (p Position) MarshalText() ([]byte, error) { return p.AppendTo(nil), nil }

// UnmarshalText reads a position as [ParsePosition] does.
func (p *Position) UnmarshalText(text []byte) error {
	parsed, err := ParsePosition(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// NewEpoch returns a random name for a new life of a record. Seven characters
// (36 bits) keep the id line of every event short; two lives of one hub share
// a name once in 78 billion.
func NewEpoch() string {
	const space = 78_364_164_096 // 36^7
	n, err := rand.Int(rand.Reader, big.NewInt(space))
	if err != nil {
		panic("sse: no randomness: " + err.Error()) // crypto/rand never fails on supported systems
	}
	return fmt.Sprintf("%07s", strconv.FormatUint(n.Uint64(), 36))
}

func validEpoch(s string) bool {
	if s == "" || len(s) > maxEpoch {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'z') {
			return false
		}
	}
	return true
}
