package sse

import (
	"container/list"
	"slices"
	"sort"
	"sync"
	"time"
	"unsafe"
)

const (
	// segmentBytes is the size to which a segment grows. It is also about
	// what one write of a replay carries.
	segmentBytes = 32 << 10
	// Frames stay in memory for this long, up to that many bytes of a
	// channel, even where the configured count keeps fewer: a burst must
	// reach the streams that are connected before it is evicted.
	liveAge   = 5 * time.Second
	liveBytes = 4 << 20
)

// A history holds the newest frames of one channel, oldest first, in segments
// of contiguous bytes. What a subscriber is sent is a slice of a segment: no
// copy is made for the common case of one channel.
//
// A segment's bytes and entries are only ever appended to, so a reader may use
// the part that it has seen without a lock, even after its eviction.
type history struct {
	mu       sync.Mutex // guards what follows
	segments []*segment
	count    int    // entries in all segments
	bytes    int    // frame bytes in all segments
	last     uint64 // seq of the newest entry there ever was
	evicted  uint64 // seq of the newest entry that is gone
	// evictedAt is the time of that entry, Unix time in nanoseconds.
	evictedAt int64
	// total is the frame bytes of all entries there ever were, marks how many
	// they had been at some of those that are gone, oldest first.
	total int64
	marks []mark
}

// A mark tells how many frame bytes there had been up to an entry.
type mark struct {
	seq   uint64
	total int64
}

// maxMarks bounds what a history remembers of its evicted segments. Beyond it
// those go first that are missed least, so that marks stand the closer the later
// they are: the farther back somebody is, the less exactly that need be known.
const maxMarks = 12

type segment struct {
	channel *channel
	frames  []byte
	entries []entry
	base    int64         // what history.total was when it began
	size    int           // what it counts for in the hub's budget
	order   *list.Element // its place in Hub.segments
}

func (s *segment) last() entry { return s.entries[len(s.entries)-1] }

type entry struct {
	seq uint64
	at  int64 // Unix time in nanoseconds
	end int   // where its frame ends in the segment's frames
}

// A run is what a reader has seen of a segment.
type run struct {
	frames  []byte
	entries []entry
	newest  bool  // nothing was behind it
	rest    int64 // the bytes of its first frame and of all that follow it in the history
}

// behind returns the bytes of the i-th frame and of all that follow it.
func (r run) behind(i int) int64 {
	if i == len(r.entries) {
		return 0
	}
	return r.rest - int64(r.start(i))
}

func (r run) frame(i int) []byte { return r.frames[r.start(i):r.entries[i].end] }

func (r run) start(i int) int {
	if i == 0 {
		return 0
	}
	return r.entries[i-1].end
}

// search returns the index of the first entry after seq.
func (r run) search(seq uint64) int {
	return sort.Search(len(r.entries), func(i int) bool { return r.entries[i].seq > seq })
}

// append adds a frame and returns the segment that it went to and the bytes by
// which that segment's size grew. The segment is new if its order is nil.
func (h *history) append(ch *channel, frame []byte, seq uint64, at int64) (*segment, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seg := h.newest()
	if seg == nil || (len(seg.frames) > 0 && len(seg.frames)+len(frame) > segmentBytes) {
		seg = h.startSegment(ch, seg)
	}
	seg.frames = append(seg.frames, frame...)
	seg.entries = append(seg.entries, entry{seq: seq, at: at, end: len(seg.frames)})
	h.count++
	h.bytes += len(frame)
	h.total += int64(len(frame))
	h.last = seq

	size := int(unsafe.Sizeof(*seg)) + cap(seg.frames) + cap(seg.entries)*int(unsafe.Sizeof(entry{}))
	grown := size - seg.size
	seg.size = size
	return seg, grown
}

func (h *history) newest() *segment {
	if len(h.segments) == 0 {
		return nil
	}
	return h.segments[len(h.segments)-1]
}

// startSegment begins a segment after prev. A channel that filled one will
// fill the next, which therefore begins at its size; the first of a channel
// begins small, as most channels hold few events.
func (h *history) startSegment(ch *channel, prev *segment) *segment {
	seg := &segment{channel: ch, base: h.total}
	if prev != nil {
		seg.frames = make([]byte, 0, segmentBytes)
		seg.entries = make([]entry, 0, len(prev.entries))
	}
	h.segments = append(h.segments, seg)
	return seg
}

// surplus reports whether the oldest segment is needed neither to keep that
// many entries nor, at a Unix time in nanoseconds, for the live streams.
func (h *history) surplus(keep int, now int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.segments) < 2 {
		return false
	}
	oldest := h.segments[0]
	passed := now-oldest.last().at >= int64(liveAge) || h.bytes-len(oldest.frames) >= liveBytes
	return passed && h.count-len(oldest.entries) >= keep
}

// dropOldest evicts the oldest segment, which must exist, and returns it.
func (h *history) dropOldest() *segment {
	h.mu.Lock()
	defer h.mu.Unlock()
	seg := h.segments[0]
	h.segments = slices.Delete(h.segments, 0, 1)
	h.count -= len(seg.entries)
	h.bytes -= len(seg.frames)
	h.evicted, h.evictedAt = seg.last().seq, seg.last().at
	h.mark(mark{h.evicted, seg.base + int64(len(seg.frames))})
	return seg
}

func (h *history) mark(m mark) {
	h.marks = append(h.marks, m)
	if len(h.marks) <= maxMarks {
		return
	}
	distance := func(i int) float64 { return float64(h.total-h.marks[i].total) + 1 }
	least := 1
	for i := 2; i < len(h.marks)-1; i++ {
		// Whoever is just behind the mark before it is thought to be at the one after.
		if distance(i-1)/distance(i+1) < distance(least-1)/distance(least+1) {
			least = i
		}
	}
	h.marks = slices.Delete(h.marks, least, least+1)
}

// bytesAfter returns how many bytes the frames of the entries after seq have, be
// they kept or not. Of those that are gone it may leave out the oldest.
func (h *history) bytesAfter(seq uint64) int64 {
	r, i, hole := h.after(seq)
	if !hole {
		return r.behind(i)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.marks {
		if m.seq > seq {
			return h.total - m.total
		}
	}
	return 0 // never: the newest mark is that of what was evicted last
}

// after returns the run that holds the first entry after seq, and the index of
// that entry; an index equal to the number of entries if there is none. It
// reports a hole if entries after seq have been evicted.
func (h *history) after(seq uint64) (r run, i int, hole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.evicted > seq {
		return run{}, 0, true
	}
	if h.last <= seq {
		return run{}, 0, false
	}
	n := sort.Search(len(h.segments), func(n int) bool {
		return h.segments[n].last().seq > seq
	})
	if n == len(h.segments) {
		return run{}, 0, false
	}
	seg := h.segments[n]
	r = run{frames: seg.frames, entries: seg.entries, newest: n == len(h.segments)-1, rest: h.total - seg.base}
	return r, r.search(seq), false
}

// A kept describes what a history offers to one who joins, which is what the
// configured count and age keep: more may be in memory for the live streams.
type kept struct {
	from   uint64 // seq of the newest entry that is no longer kept
	last   uint64 // seq of the newest entry there ever was
	events int
	bytes  int
}

// kept applies a retention of the newest entries, up to a count of them, that
// are not older than a Unix time in nanoseconds.
func (h *history) kept(count int, oldest int64) kept {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := kept{from: h.evicted, last: h.last, events: h.count, bytes: h.bytes}
	for _, seg := range h.segments {
		old := sort.Search(len(seg.entries), func(i int) bool { return seg.entries[i].at >= oldest })
		gone := min(max(k.events-count, old), len(seg.entries))
		if gone == 0 {
			break
		}
		k.from = seg.entries[gone-1].seq
		k.events -= gone
		k.bytes -= seg.entries[gone-1].end
		if gone < len(seg.entries) {
			break
		}
	}
	return k
}

// whole reports whether memory has all that such a retention keeps, where there
// may have been events before the first that is known.
func (h *history) whole(count int, oldest int64, unknown uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.count >= count:
		return true
	case h.evicted > 0:
		return h.evictedAt < oldest
	}
	return unknown == 0
}

// countAfter returns how many entries after seq are in memory.
func (h *history) countAfter(seq uint64) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, seg := range slices.Backward(h.segments) {
		first := run{entries: seg.entries}.search(seq)
		n += len(seg.entries) - first
		if first > 0 {
			break
		}
	}
	return n
}
