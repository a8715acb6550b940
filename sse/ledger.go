package sse

import (
	"crypto/sha256"
	"fmt"
	"time"
)

const (
	// RepeatWindow is for how long the ID of an event is remembered.
	RepeatWindow = 5 * time.Minute
	// MaxRepeats is how many IDs a [Ledger] remembers. More within the
	// window are refused, as the promise to know them could not be kept.
	MaxRepeats = 1 << 22
	// MaxEnded is how many ended channels a [Ledger] remembers. Beyond it
	// the one that ended first is forgotten, and may begin anew.
	MaxEnded = 100_000
)

// An IDKey stands for the ID of an event: the first half of its SHA-256.
type IDKey [16]byte

// KeyOf returns the key of an ID.
func KeyOf(id string) IDKey {
	sum := sha256.Sum256([]byte(id))
	return IDKey(sum[:16])
}

// A Repeat is an ID that is remembered, with the event's seq and time.
type Repeat struct {
	Key  IDKey
	Seq  uint64
	Time time.Time
}

// A Ledger decides, for a broker that lives in one process, what becomes of
// the events that are published: the position of each, which are repeats, and
// which come too late for their channel. It knows the head of the record, the
// IDs of the last [RepeatWindow], and the channels that ended.
//
// A broker calls Draft for each publish, keeps the entries of one or several
// drafts, and then calls Commit, or Rollback if it could not. A Ledger is not
// safe for concurrent use.
type Ledger struct {
	head, committed Position
	time            time.Time // of the newest entry
	repeats         map[IDKey]uint64
	order           []repeat // oldest first; those before expired are gone
	expired         int
	drafted         int // how many of order are not committed
	ended           ends
	draftedEnds     int // how many of ended are not committed
}

type repeat struct {
	key IDKey
	seq uint64
	at  int64 // Unix time in nanoseconds, by the clock; it need not be that of the entry
}

// NewLedger returns the ledger of a record whose newest entry has the position
// and time given, both zero but for the epoch if there is none.
func NewLedger(head Position, at time.Time) *Ledger {
	return &Ledger{
		head: head, committed: head, time: at,
		repeats: make(map[IDKey]uint64),
		ended:   newEnds(),
	}
}

// Restore makes the ledger know an ID again, from a record that is opened.
// They are given in the order of their seq.
func (l *Ledger) Restore(r Repeat) {
	l.repeats[r.Key] = r.Seq
	l.order = append(l.order, repeat{r.Key, r.Seq, r.Time.UnixNano()})
}

// RestoreEnds makes the ledger know again which channels an entry ended.
// Entries are given in order.
func (l *Ledger) RestoreEnds(e *Entry) {
	for _, name := range e.Event.Channels {
		l.ended.add(name, e.Position.Seq)
	}
	l.ended.trim(0)
}

// Head returns the position of the newest entry that is committed.
func (l *Ledger) Head() Position { return l.committed }

// Ended returns the channels that have ended by what is committed, in order.
func (l *Ledger) Ended() []Ended { return l.ended.list(l.draftedEnds) }

// Draft orders the events of one publish: it returns the entries that are to be
// appended to the record, without those that are repeats, and a position for
// each event. On error nothing was ordered: an [*EndedError], or one that
// matches [ErrUnavailable] if there are too many IDs to remember.
func (l *Ledger) Draft(events []Event, now time.Time) ([]Entry, []Position, error) {
	clock := now.UnixNano()
	now = now.Round(0) // without a monotonic reading, as what is read back from a file
	if now.Before(l.time) {
		now = l.time // the clock was set back
	}
	l.expire(clock)
	keys, err := l.check(events)
	if err != nil {
		return nil, nil, err
	}
	entries := make([]Entry, 0, len(events))
	positions := make([]Position, len(events))
	for i, e := range events {
		if e.ID != "" {
			if seq, known := l.repeats[keys[i]]; known {
				positions[i] = Position{Epoch: l.head.Epoch, Seq: seq}
				continue
			}
			l.repeats[keys[i]] = l.head.Seq + 1
			l.order = append(l.order, repeat{keys[i], l.head.Seq + 1, clock})
			l.drafted++
		}
		l.head.Seq++
		l.time = now
		positions[i] = l.head
		entries = append(entries, Entry{Position: l.head, Time: now, Event: e})
		if e.End != EndNone {
			for _, name := range e.Channels {
				l.ended.add(name, l.head.Seq)
			}
			l.draftedEnds += len(e.Channels)
		}
	}
	return entries, positions, nil
}

// check returns the keys of the events' IDs, nil if they have none, or why the
// events cannot be ordered.
func (l *Ledger) check(events []Event) ([]IDKey, error) {
	var keys []IDKey
	var fresh map[IDKey]bool       // IDs that are not known yet
	var ending map[string]struct{} // channels that an event of this publish ends
	for i := range events {
		e := &events[i]
		if e.ID != "" {
			if keys == nil {
				keys, fresh = make([]IDKey, len(events)), make(map[IDKey]bool)
			}
			keys[i] = KeyOf(e.ID)
			if _, known := l.repeats[keys[i]]; known || fresh[keys[i]] {
				continue
			}
			fresh[keys[i]] = true
		}
		for _, name := range e.Channels {
			if seq, ended := l.ended.seqs[name]; ended {
				return nil, &EndedError{Index: i, Channel: name, At: Position{l.head.Epoch, seq}}
			}
			if _, ends := ending[name]; ends {
				return nil, &EndedError{Index: i, Channel: name}
			}
		}
		if e.End != EndNone {
			if ending == nil {
				ending = make(map[string]struct{})
			}
			for _, name := range e.Channels {
				ending[name] = struct{}{}
			}
		}
	}
	if known := len(l.order) - l.expired; len(fresh) > 0 && known+len(fresh) > MaxRepeats {
		return nil, fmt.Errorf("%w: %d ids of publishers are remembered, as many as can be, each for %s", ErrUnavailable, known, RepeatWindow)
	}
	return keys, nil
}

// Commit makes the drafts since the last one final.
func (l *Ledger) Commit() {
	l.committed = l.head
	l.drafted, l.draftedEnds = 0, 0
	l.ended.trim(0)
}

// Rollback forgets the drafts since the last Commit.
func (l *Ledger) Rollback() {
	l.head = l.committed
	keep := len(l.order) - l.drafted
	for _, r := range l.order[keep:] {
		delete(l.repeats, r.key)
	}
	l.order, l.drafted = l.order[:keep], 0
	l.ended.undo(l.draftedEnds)
	l.draftedEnds = 0
}

// Forget tells that the record no longer keeps an entry. If it ended channels,
// they may begin anew.
func (l *Ledger) Forget(e *Entry) {
	if e.Event.End == EndNone {
		return
	}
	for _, name := range e.Event.Channels {
		l.ended.drop(name, e.Position.Seq)
	}
	l.ended.trim(l.draftedEnds)
}

// RemembersFrom forgets the IDs that are too old by now, and returns the seq
// from which on they are remembered.
func (l *Ledger) RemembersFrom(now time.Time) uint64 {
	l.expire(now.UnixNano())
	next := l.committed.Seq + 1 // a draft may be taken back, and its seqs given anew
	if l.expired < len(l.order) {
		return min(l.order[l.expired].seq, next)
	}
	return next
}

// expire forgets the IDs that are too old by a time. If the clock was set back,
// those that come from what is now the future have their whole time before
// them, but no more than that.
func (l *Ledger) expire(now int64) {
	for i := len(l.order) - 1; i >= l.expired && l.order[i].at > now; i-- {
		l.order[i].at = now
	}
	oldest := now - RepeatWindow.Nanoseconds()
	final := len(l.order) - l.drafted
	for l.expired < final && l.order[l.expired].at <= oldest {
		r := l.order[l.expired]
		if l.repeats[r.key] == r.seq {
			delete(l.repeats, r.key)
		}
		l.expired++
	}
	if l.expired > 1024 && l.expired > len(l.order)/2 {
		l.order = append(make([]repeat, 0, len(l.order)-l.expired), l.order[l.expired:]...)
		l.expired = 0
	}
}
