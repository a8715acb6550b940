package sse

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
)

// A backfill sends what a client missed of channels that it added to a stream
// that is open, with a start in the past: they are read by a reader of their own,
// from there to where the stream is, before the stream goes on.
//
// Its events have their own ids, which lie behind the stream's position. Each is
// therefore followed by an id that says both, see [ParseStart]: a client that
// loses its stream in between gets the rest of the backfill, and nothing twice.
type backfill struct {
	number uint64      // of the change
	reader *Subscriber // is in no topic
}

// A fill is what a session remembers of a backfill, until it is known that the
// client received it.
type fill struct {
	number uint64
	at     uint64 // where the stream was
	from   Start
	items  []string
	except []string // what the client had then, by which it got those events
	sent   bool     // a stream may have carried some of it
	lost   bool     // it can only be reset
}

// maxFills is how many backfills a session remembers. Beyond it the oldest can
// only be reset. A client that would need them has received nothing of all that
// came later.
const maxFills = 8

// reader makes a subscriber that reads for a backfill of this one, without what it
// has already.
func (s *Subscriber) reader(has []string, limit int32) *Subscriber {
	return &Subscriber{aside: &aside{parent: s, except: has}, hub: s.hub, session: s.session, narrowed: true, replayLimit: limit}
}

// main returns the subscriber whose stream this is for.
func (s *Subscriber) main() *Subscriber { return cmp.Or(s.parent, s) }

// startBackfill has a reader begin with those names and patterns of which it does
// not leave out everything. It is nil if there are none. The caller holds the
// hub's lock, which may be released meanwhile, and ends it by exitBackfill.
func (h *Hub) startBackfill(ctx context.Context, r *Subscriber, missed []string, start Start) (*backfill, error) {
	left := slices.DeleteFunc(slices.Clone(missed), func(item string) bool { return coveredBy(r.except, item) })
	if len(left) == 0 {
		return nil, nil
	}
	r.items = &items{cover: left}
	h.enter(r, r.cover, 0)
	b := &backfill{reader: r}
	if err := h.begin(ctx, r, start); err != nil && !errors.Is(err, ErrEnded) {
		h.exitBackfill(b)
		return nil, err
	}
	return b, nil
}

// exitBackfill takes the reader out of the index. It goes on to use what is known
// of its topics, in which the stream itself is.
func (h *Hub) exitBackfill(b *backfill) {
	if b == nil {
		return
	}
	entered := b.reader.memberships
	b.reader.memberships = slices.Clone(entered)
	h.exit(entered)
}

// take makes the backfill a part of the change, if there is anything to send.
func (c *change) take(b *backfill, has []string) {
	if b == nil {
		return
	}
	r := b.reader
	r.except, r.until = has, c.at
	b.number = c.number
	c.resets = r.opening.resets
	if !b.narrow(c.cover) || (len(r.work) == 0 && !r.behind) {
		c.ends = r.ends
		return
	}
	c.fill = b
}

// narrow leaves out what the stream no longer gets, and reports whether anything
// is left.
func (b *backfill) narrow(to []string) bool {
	r := b.reader
	r.items = &items{cover: common(r.cover, to)}
	r.work = slices.DeleteFunc(r.work, func(ch *channel) bool { return r.item(ch) == "" })
	r.ends = slices.DeleteFunc(r.ends, func(e Ended) bool { return r.itemOf(e.Channel) == "" })
	return len(r.cover) > 0
}

// pullBackfill returns what comes next of the first backfill.
func (s *Subscriber) pullBackfill() batch {
	b := s.backfills[0]
	if r := b.reader; r.position < r.until || len(r.ends) > 0 {
		if next := r.pullTo(r.until); next.behind {
			return next
		} else if next.some() {
			return s.stamp(b, next)
		}
	}
	s.backfills = slices.Delete(s.backfills, 0, 1)
	s.filled = fillCursor{b.number, s.position}
	return batch{bytes: s.appendFillCursor(nil, s.filled)}
}

// backfillBehind does so where memory does not have it.
func (s *Subscriber) backfillBehind(ctx context.Context) batch {
	b := s.backfills[0]
	return s.stamp(b, b.reader.pullBehind(ctx))
}

// stamp puts behind each frame of a backfill the id that says where the client is
// then.
func (s *Subscriber) stamp(of *backfill, b batch) batch {
	stamped := batch{events: b.events, closing: b.closing, again: true, scratch: scratches.Get().(*[]byte)}
	stamped.bytes = *stamped.scratch
	for rest := b.bytes; len(rest) > 0; {
		end := bytes.Index(rest, []byte("\n\n")) + 2 // no line of a frame is empty
		frame := rest[:end]
		rest = rest[end:]
		seq, hasID := frameSeq(frame)
		if _, own, found := bytes.Cut(frame, []byte("\nevent: hub:")); hasID && found {
			frame = append([]byte("event: hub:"), own...) // the reader's position is not the client's
		}
		if !bytes.HasPrefix(frame, []byte(keepaliveComment)) {
			stamped.bytes = append(stamped.bytes, frame...)
		}
		if hasID {
			stamped.bytes = s.appendFillCursor(stamped.bytes, fillCursor{of.number, seq})
		}
	}
	b.release()
	return stamped
}

// frameSeq returns the seq of a frame's id.
func frameSeq(frame []byte) (seq uint64, ok bool) {
	frame = bytes.TrimPrefix(frame, []byte(keepaliveComment))
	line, _, _ := bytes.Cut(frame, []byte("\n"))
	id, ok := bytes.CutPrefix(line, []byte("id: "))
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(id[bytes.LastIndexByte(id, '.')+1:]), 10, 64)
	return seq, err == nil
}

// appendFillCursor appends a frame that only moves the client's cursor.
func (s *Subscriber) appendFillCursor(b []byte, at fillCursor) []byte {
	return append(append(appendFillID(append(b, "id: "...), s.at(), at), '\n'), '\n')
}

// appendCursorID appends the id of where the client is: at the position, and at
// the beginning of the first backfill if there is one. Where it has received one,
// and nothing since, the position alone would not tell.
func (s *Subscriber) appendCursorID(b []byte) []byte {
	switch {
	case len(s.backfills) > 0:
		first := s.backfills[0]
		return appendFillID(b, s.at(), fillCursor{first.number, min(first.reader.position, s.position)})
	case s.filled.number > 0 && s.filled.through == s.position:
		return appendFillID(b, s.at(), s.filled)
	}
	return s.at().AppendTo(b)
}

// noteFill remembers a backfill.
func (sess *session) noteFill(f fill) {
	if f.from.kind == startLatest || len(f.items) == 0 {
		return
	}
	sess.changed.fills = append(slices.Clip(sess.changed.fills), f)
	if len(sess.changed.fills) > maxFills {
		oldest, next := sess.changed.fills[0], sess.changed.fills[1]
		next.items = common(cover(append(slices.Clip(oldest.items), next.items...)), cover(sess.named))
		next.lost = true
		sess.changed.fills = append([]fill{next}, sess.changed.fills[2:]...)
	}
}

// narrowFills forgets of the backfills what the connection no longer gets.
func (sess *session) narrowFills(to []string) {
	var left []fill
	for _, f := range sess.changed.fills {
		if f.items = common(f.items, to); len(f.items) > 0 {
			left = append(left, f)
		}
	}
	sess.changed.fills = left
}

// unconfirmed returns those backfills of which the client cannot have received
// all, where the last id that it did receive is that of a start. It is not sure if
// it cannot be told what that id stands for.
func (h *Hub) unconfirmed(sess *session, start Start) (left []fill, sure bool) {
	switch start.kind {
	case startLatest: // it received nothing, not even an id
		return sess.fills(), true
	case startEarliest, startUnknown: // it gets everything, or is told that it does not
		return nil, true
	case startAfter:
	}
	at := start.after.Seq
	for _, f := range sess.fills() {
		switch number := start.fill.number; {
		case number > f.number, number == 0 && at > f.at, number == f.number && start.fill.through >= at:
			continue
		case number == f.number && start.fill.through > 0:
			f.from = After(Position{start.after.Epoch, start.fill.through})
		case number == 0 && f.sent && at > f.from.after.Seq && h.mayHold(f.items, at):
			// It is the id of an event of the backfill, behind which the stream
			// broke; or where the client was long before that.
			return nil, false
		}
		left = append(left, f)
	}
	return left, true
}

// mayHold reports whether the event at a seq may be on one of the channels.
func (h *Hub) mayHold(items []string, seq uint64) bool {
	return slices.ContainsFunc(items, func(item string) bool {
		ch := h.index.channels[item]
		if ch == nil {
			return true // a pattern, or one of which nothing is known
		}
		r, i, hole := ch.history.after(seq - 1)
		return hole || (i < len(r.entries) && r.entries[i].seq == seq)
	})
}

// beginAgain makes a subscriber begin as begin does, and then go on with the
// backfills that its session remembers.
func (h *Hub) beginAgain(ctx context.Context, s *Subscriber, start Start) error {
	sess := s.session
	if n := start.fill.number; n > 0 && (n <= sess.base || n > sess.number) { // of a session that is forgotten
		if start.fill.through < start.after.Seq {
			start = Unknown()
		}
		start.fill = fillCursor{}
	}
	left, sure := h.unconfirmed(sess, start)
	if !sure {
		start = Unknown()
	}
	if err := h.begin(ctx, s, start); err != nil && (!errors.Is(err, ErrEnded) || len(left) == 0) {
		return err
	}
	if s.opening.resume == ResumeReset && s.isWhole(s.opening.resets) {
		// The backfills are given up too, when it is known that the client was
		// told: by the id that says so.
		if len(sess.fills()) > 0 {
			s.filled = fillCursor{sess.number, s.position}
		}
		return nil
	}
	if sess.changed == nil {
		return nil
	}
	sess.changed.fills = left
	for i := range left {
		if err := h.fillAgain(ctx, s, &left[i]); err != nil {
			return err
		}
	}
	return nil
}

// fillAgain goes on with a backfill, up to where the stream begins.
func (h *Hub) fillAgain(ctx context.Context, s *Subscriber, f *fill) error {
	f.at, f.sent = s.position, true
	items := common(f.items, s.cover)
	if f.lost {
		for _, item := range items {
			s.opening.resets = addReset(s.opening.resets, item, ResetUnknown)
		}
		s.opening.resume = ResumeReset
		return nil
	}
	b, err := h.startBackfill(ctx, s.reader(f.except, s.replayLimit), items, f.from)
	if err != nil || b == nil {
		return err
	}
	defer h.exitBackfill(b)
	r := b.reader
	b.number, r.until, r.ends = f.number, s.position, nil // the stream tells of the ends
	for _, reset := range r.opening.resets {
		s.opening.resets = addReset(s.opening.resets, reset.Channel, reset.Reason)
		s.opening.resume = ResumeReset
	}
	if (len(r.work) > 0 || r.behind) && r.position < r.until {
		s.backfills = append(s.backfills, b)
	}
	return nil
}
