package sse

import (
	"container/list"
	"strings"
)

// A topic is what a subscriber can be at: a channel or a prefix pattern.
type topic struct {
	name        string // the channel's, or the pattern
	only        *items // nothing but the name; nil before somebody gets that
	subscribers []*Subscriber
	// forgotten is the newest seq of which the hub does not know whether it
	// was an event here: what it had forgotten when it made the channel, or
	// when somebody began to listen to the pattern; and of a pattern also
	// the newest event on the channels that it matched and that the hub
	// forgot since.
	forgotten uint64
}

// A membership is a subscriber's place in a topic.
type membership struct {
	topic *topic
	slot  int // index in topic.subscribers
	// floor is the head at which the topic was reset, or added to a stream
	// that is open: its events up to there are not for this subscriber.
	floor uint64
}

// alone returns the items of those that get nothing else, which share them.
func (t *topic) alone() *items {
	if t.only == nil {
		name := []string{t.name}
		t.only = &items{name, name}
	}
	return t.only
}

// add puts the subscriber into the topic.
func (t *topic) add(s *Subscriber) {
	s.memberships = append(s.memberships, membership{topic: t, slot: len(t.subscribers)})
	t.subscribers = append(t.subscribers, s)
}

// remove takes out the subscriber at a slot by moving the last one there.
func (t *topic) remove(slot int) {
	end := len(t.subscribers) - 1
	moved := t.subscribers[end]
	t.subscribers[end] = nil
	t.subscribers = t.subscribers[:end]
	if slot == end {
		return
	}
	t.subscribers[slot] = moved
	for i := range moved.memberships {
		if moved.memberships[i].topic == t {
			moved.memberships[i].slot = slot
			return
		}
	}
}

// A channel is a name that events were published on or that somebody listens
// to, with its history and its subscribers. Those that come by a pattern are
// at the pattern's topic.
type channel struct {
	topic
	history

	recent     *list.Element // place in Hub.recent; nil before its first event
	idle       *list.Element // place in Hub.idle; nil while it has kept events or subscribers
	matching   []*topic      // the patterns that match its name
	generation uint64        // index.generation at which matching was found
}

// An index finds the subscribers of a channel. The cost of a look-up follows
// what it finds, not what is in it. It is guarded by Hub.mu.
type index struct {
	channels map[string]*channel
	patterns map[string]*topic // by prefix
	lengths  []int             // how often a prefix of that length is in patterns
	// generation counts the changes of patterns, so that each channel can
	// remember those that match it.
	generation uint64
	counts     uint32 // how often subscribers were counted one by one
}

func newIndex() index {
	return index{
		channels:   make(map[string]*channel),
		patterns:   make(map[string]*topic),
		lengths:    make([]int, MaxChannel+1),
		generation: 1,
	}
}

// pattern returns the topic of a prefix, which it makes if needed.
func (x *index) pattern(prefix string, forgotten uint64) *topic {
	t := x.patterns[prefix]
	if t == nil {
		t = &topic{name: prefix + "*", forgotten: forgotten}
		x.patterns[prefix] = t
		x.lengths[len(prefix)]++
		x.generation++
	}
	return t
}

// dropPattern forgets a prefix that has no subscribers left.
func (x *index) dropPattern(prefix string) {
	delete(x.patterns, prefix)
	x.lengths[len(prefix)]--
	x.generation++
}

// matches returns the topics of the patterns that match the channel.
func (x *index) matches(ch *channel) []*topic {
	if ch.generation != x.generation {
		ch.matching = x.appendMatches(ch.matching[:0], ch.name)
		ch.generation = x.generation
	}
	return ch.matching
}

func (x *index) appendMatches(found []*topic, name string) []*topic {
	if len(x.patterns) == 0 {
		return found
	}
	for n := range len(name) + 1 {
		if x.lengths[n] == 0 {
			continue
		}
		if t := x.patterns[name[:n]]; t != nil {
			found = append(found, t)
		}
	}
	return found
}

// count returns how many subscribers an event on these channels reaches, each
// counted once.
func (x *index) count(channels []string) int {
	if len(channels) == 1 {
		n := 0
		for _, t := range x.topics(nil, channels[0]) {
			n += len(t.subscribers)
		}
		return n
	}
	var topics []*topic
	for _, name := range channels {
		topics = x.topics(topics, name)
	}
	x.counts++
	n := 0
	for _, t := range topics {
		for _, s := range t.subscribers {
			if s.counted != x.counts {
				s.counted = x.counts
				n++
			}
		}
	}
	return n
}

// topics appends every topic through which an event on the channel goes out.
// No subscriber is in two of them, see cover.
func (x *index) topics(found []*topic, name string) []*topic {
	ch := x.channels[name]
	if ch == nil {
		return x.appendMatches(found, name)
	}
	return append(append(found, &ch.topic), x.matches(ch)...)
}

// names returns the names of all channels with a prefix that come after another.
func (x *index) names(prefix, after string) []string {
	var names []string
	for name := range x.channels {
		if name > after && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}
