package sse_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A changer is a client that changes what it gets at random, loses its stream
// at any byte, comes back with the last id it received, and knows which events
// it must have got, may have got, and must not get.
type changer struct {
	t    *testing.T
	h    *sse.Hub
	rand *rand.Rand
	// evicts is whether memory forgets, and the record has to be read.
	evicts bool
	s      *sse.Subscriber

	lastID   string
	has      map[string]bool // channels
	owed     map[uint64]bool // seqs that must still come
	may      map[uint64]bool // seqs that may come
	got      map[uint64]bool
	again    map[uint64]int      // how often it may come once more
	channels map[uint64][]string // of every event that was published
	log      []string
}

var changerChannels = []string{"a1", "a2", "b", "c"}

func (c *changer) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *changer) gets(channels []string) bool {
	return slices.ContainsFunc(channels, func(ch string) bool { return c.has[ch] })
}

func (c *changer) publish() {
	names := []string{changerChannels[c.rand.IntN(len(changerChannels))]}
	if other := changerChannels[c.rand.IntN(len(changerChannels))]; c.rand.IntN(4) == 0 && other != names[0] {
		names = append(names, other)
	}
	seq := publish(c.t, c.h, "x", names...).Seq
	c.note("publish %d on %q", seq, names)
	c.channels[seq] = names
	if c.gets(names) {
		c.owed[seq] = true
	}
}

// change subscribes to a channel or leaves one. What is left is neither owed any
// more nor may it come; what is added comes from where it is said.
func (c *changer) change() {
	name := changerChannels[c.rand.IntN(len(changerChannels))]
	head := c.h.Stats().Position.Seq
	ask := sse.Change{}
	from := head
	switch {
	case c.has[name]:
		ask.Unsubscribe = []string{name}
	default:
		ask.Subscribe = []string{name}
		switch c.rand.IntN(3) {
		case 0:
			from = uint64(c.rand.IntN(int(head) + 1))
			ask.Start = after(c.h, from)
		case 1:
			from = 0
			ask.Start = sse.Earliest()
		}
	}
	if _, err := c.h.Change(c.t.Context(), "c", "", ask); err != nil {
		if err == sse.ErrChanging {
			return
		}
		c.t.Fatalf("Change: %v", err)
	}
	c.note("change %+v from %d", ask, from)
	c.has[name] = len(ask.Subscribe) > 0
	for seq, channels := range c.channels {
		switch {
		case !slices.Contains(channels, name):
		case !c.has[name] && !c.gets(channels):
			delete(c.owed, seq)
			delete(c.may, seq)
		case !c.has[name] && c.owed[seq]:
			// It was owed by this channel, or by the other, or by both.
			delete(c.owed, seq)
			c.may[seq] = true
		case c.has[name] && seq > from && len(channels) == 1:
			c.owed[seq] = true
			delete(c.got, seq) // it was asked for again
		case c.has[name] && seq > from:
			c.again[seq]++ // by either of its channels
		}
	}
}

// read takes some of what the stream has, and loses it at any byte or not.
func (c *changer) read(loses bool) {
	var stream []byte
	for range c.rand.IntN(4) {
		frames, _, closing := c.s.Pull()
		if closing != "" {
			c.t.Fatalf("the stream closes: %s", closing)
		}
		stream = append(stream, frames...)
	}
	if c.rand.IntN(3) == 0 {
		stream = append(stream, c.s.KeepaliveFrame()...)
	}
	if loses {
		stream = stream[:c.rand.IntN(len(stream)+1)]
	}
	c.receive(stream)
}

func (c *changer) receive(stream []byte) {
	decoder := sse.NewDecoder(strings.NewReader(string(stream)))
	for {
		m, err := decoder.Decode()
		if decoder.LastEventID() != "" {
			c.lastID = decoder.LastEventID()
		}
		if err != nil {
			return
		}
		c.note("receive %s %s %s", m.Event, c.lastID, m.Data)
		switch m.Event {
		case "hub:open", "hub:reset":
			if strings.Contains(m.Data, `"reset"`) {
				c.reset()
			}
		case "message":
			c.event()
		}
	}
}

// reset: everything that is owed may be gone.
func (c *changer) reset() {
	for seq := range c.owed {
		c.may[seq] = true
	}
	clear(c.owed)
}

func (c *changer) event() {
	at, err := sse.ParsePosition(c.lastID)
	if err != nil {
		c.t.Fatalf("an event with the id %s", c.lastID)
	}
	seq := at.Seq
	switch {
	case !c.owed[seq] && !c.may[seq] && c.again[seq] > 0:
		c.again[seq]--
	case c.got[seq] && !c.may[seq]:
		c.fail("event %d came twice", seq)
	case !c.owed[seq] && !c.may[seq]:
		c.fail("event %d on %q came, and must not", seq, c.channels[seq])
	}
	c.got[seq] = true
	delete(c.owed, seq)
	delete(c.may, seq)
}

func (c *changer) fail(format string, args ...any) {
	c.t.Helper()
	from := max(len(c.log)-60, 0)
	c.t.Fatalf(format+"\n%s", append(args, strings.Join(c.log[from:], "\n"))...)
}

// reconnect comes back. Events that were published on a channel before it was
// added may come now, if the client's last id is from before that.
func (c *changer) reconnect() {
	c.s.Leave()
	start, err := sse.ParseStart(c.lastID)
	if err != nil {
		c.t.Fatal(err)
	}
	c.note("reconnect with %s", c.lastID)
	position, _, _ := strings.Cut(c.lastID, "-")
	at, err := sse.ParsePosition(position)
	if err != nil {
		c.t.Fatal(err)
	}
	for seq, channels := range c.channels {
		if seq > at.Seq && c.gets(channels) && !c.got[seq] && !c.owed[seq] {
			c.may[seq] = true
		}
	}
	for c.rand.IntN(3) == 0 { // an answer that does not arrive
		lost := connect(c.t, c.h, start, "b")
		c.note("lost: %s", lost.OpenFrame())
		lost.Pull()
		lost.Leave()
	}
	c.open(start)
}

func (c *changer) open(start sse.Start) {
	c.s = connect(c.t, c.h, start, "b")
	c.receive(c.s.OpenFrame())
}

// TestChangesAtRandom holds that a client which changes what it gets, with and
// without a start in the past, and whose stream breaks at any byte, gets every
// event that it must, each once, and none that it must not; or a reset.
func TestChangesAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	t.Run("memory", func(t *testing.T) {
		for i := range rounds {
			changeAtRandom(t, newHub(t, sse.Options{}), seed+uint64(i))
		}
	})
	t.Run("record", func(t *testing.T) {
		for i := range rounds {
			changeAtRandom(t, newHubOn(t, newKeeper(), sse.Options{}), seed+uint64(i))
		}
	})
}

func changeAtRandom(t *testing.T, h *sse.Hub, seed uint64) {
	c := &changer{
		t: t, h: h, evicts: strings.HasSuffix(t.Name(), "record"), rand: rand.New(rand.NewPCG(seed, 0)),
		has: map[string]bool{"b": true}, again: map[uint64]int{}, owed: map[uint64]bool{}, may: map[uint64]bool{}, got: map[uint64]bool{},
		channels: map[uint64][]string{}, log: []string{fmt.Sprint("seed ", seed)},
	}
	c.open(sse.Latest())
	for range 120 {
		if c.evicts && c.rand.IntN(10) == 0 {
			h.EvictAll() // which has it all read from the record
		}
		switch n := c.rand.IntN(20); {
		case n < 9:
			c.publish()
		case n < 13:
			c.change()
		case n < 18:
			c.read(false)
		default:
			c.read(true)
			c.reconnect()
		}
	}
	c.receive(drain(c.s))
	if len(c.owed) > 0 {
		c.fail("events did not come: %v", c.owed)
	}
	c.s.Leave()
	c.h.Close()
}
