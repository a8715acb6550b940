package ssetest

import (
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-sse/caddy-sse/sse"
)

// HistoryOptions say what a record promises beyond what all of them do.
type HistoryOptions struct {
	// KeepsAll is for a record of which nothing expires, and replays without
	// a limit. A reset is wrong then, unless the record began anew.
	KeepsAll bool
	// ReplaysAll is for a hub that gives all there ever was to one who begins
	// with the earliest.
	ReplaysAll bool
	// Durable is for a record that outlives its server: that it begins anew is
	// wrong.
	Durable bool
}

// A History notes what publishers were told and what subscribers saw, and finds
// whether the one agrees with the other: no event is lost, doubled, reordered
// or made up, none is missing without a reset that says so, and the record has
// the order in which publishes came after one another.
//
// It must know of every publish to the hub since the record was empty. It keeps
// about 50 bytes of each publish and 8 of each delivery, not the data. All
// methods but Check may be called concurrently, those of one [Publication] or one
// [HistoryConnection] by one goroutine after the other. Create it with
// [NewHistory].
type History struct {
	options HistoryOptions
	clock   atomic.Int64 // counts what was noted, and so tells what came after what

	mu          sync.Mutex // guards what follows
	published   []published
	sets        [][]string // sets of channels, each once
	setOf       map[string]uint32
	epochs      []string // in the order in which they were first seen
	epochOf     map[string]int
	acks        []ack
	refused     int // attempts
	subscribers []*HistorySubscriber
	violations  []Violation // found while noting
}

// A published event, under the number that is its index.
type published struct {
	sum   uint32
	set   uint32 // index in History.sets
	begin int64  // before the first attempt that may have been kept
	open  int32  // attempts that were not refused
	acked bool
	ends  bool
	// silent is an end without an event that subscribers see.
	silent bool
}

// An ack is an answer that tells an event's position.
type ack struct {
	number uint32
	at     place
	end    int64 // after the answer came
}

// A place is a position whose epoch is an index.
type place struct {
	epoch int
	seq   uint32
}

// NewHistory returns a history of an empty record.
func NewHistory(options HistoryOptions) *History {
	return &History{
		options:   options,
		published: make([]published, 1), // the number zero stands for no event
		setOf:     make(map[string]uint32),
		epochOf:   make(map[string]int),
	}
}

func (h *History) now() int64 { return h.clock.Add(1) }

// A Publication is an event that is published, once or repeatedly.
type Publication struct {
	// Event is what to publish: the one that the history was given, with a
	// number before its data that makes it unlike all others.
	Event sse.Event

	history *History
	number  uint32
}

// NewPublication numbers an event that is about to be published. Its channels
// are not modified and must not be afterwards. One that only ends channels has
// no data.
func (h *History) NewPublication(e sse.Event) *Publication {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := uint32(len(h.published))
	if e.End != sse.EndOnly {
		e.Data = strconv.FormatUint(uint64(number), 10) + " " + e.Data
	}
	h.published = append(h.published, published{
		sum:  checksum(e.Name, e.Data),
		set:  h.set(e.Channels),
		ends: e.End != sse.EndNone, silent: e.End == sse.EndOnly,
	})
	return &Publication{Event: e, history: h, number: number}
}

func (h *History) set(channels []string) uint32 {
	key := strings.Join(channels, "\x00")
	i, ok := h.setOf[key]
	if !ok {
		i = uint32(len(h.sets))
		h.sets = append(h.sets, channels)
		h.setOf[key] = i
	}
	return i
}

// checksum is over what a subscriber sees of an event.
func checksum(name, data string) uint32 {
	if name == "message" { // what the absence of a name means
		name = ""
	}
	data = strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n")
	return crc32.Update(crc32.ChecksumIEEE([]byte(name+"\x00")), crc32.IEEETable, []byte(data))
}

// numberOf returns the number before the data, zero if there is none.
func numberOf(data string) uint32 {
	digits, _, _ := strings.Cut(data, " ")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// Begin notes that the event is about to be sent to the server. After each
// Begin call Refused or Acknowledged when the server answered. Without either
// the event may have been kept or not.
func (p *Publication) Begin() {
	h := p.history
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	e := &h.published[p.number]
	if e.open == 0 {
		e.begin = now
	}
	e.open++
}

// Refused notes that the latest attempt was answered with an error, or did not
// reach the server, so that it published nothing.
func (p *Publication) Refused() {
	h := p.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published[p.number].open--
	h.refused++
}

// Acknowledged notes the position that the server answered.
func (p *Publication) Acknowledged(at sse.Position) {
	h := p.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published[p.number].acked = true
	if seen, ok := h.place(at); ok {
		h.acks = append(h.acks, ack{number: p.number, at: seen, end: h.now()})
	} else {
		h.wrong(Violation{Kind: Malformed, Text: "a publish was answered with the position " + at.String()})
	}
}

// place returns a position with its epoch's index. It reports false for one
// that no event can have.
func (h *History) place(at sse.Position) (place, bool) {
	epoch, ok := h.epochOf[at.Epoch]
	if !ok {
		epoch = len(h.epochs)
		h.epochs = append(h.epochs, at.Epoch)
		h.epochOf[at.Epoch] = epoch
	}
	return place{epoch, uint32(at.Seq)}, at.Seq < math.MaxUint32
}

// parse is place for what stands on the wire.
func (h *History) parse(id string) (place, bool) {
	at, err := sse.ParsePosition(id)
	if err != nil {
		return place{}, false
	}
	return h.place(at)
}

func (h *History) position(p place) sse.Position {
	return sse.Position{Epoch: h.epochs[p.epoch], Seq: uint64(p.seq)}
}

// maxNoted bounds the violations that are kept while noting.
const maxNoted = 1000

func (h *History) wrong(v Violation) {
	if len(h.violations) < maxNoted {
		h.violations = append(h.violations, v)
	}
}
