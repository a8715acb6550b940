package boltbroker

import (
	"sort"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A channel is a name and the seqs of the entries that are on it, in order.
type channel struct {
	name string
	seqs []uint64
}

// behind returns the seqs behind one.
func (c *channel) behind(seq uint64) []uint64 {
	return c.seqs[sort.Search(len(c.seqs), func(i int) bool { return c.seqs[i] > seq }):]
}

// An index knows the channels of the entries that are kept.
type index struct {
	channels map[string]*channel
	names    names
}

func newIndex() index { return index{channels: make(map[string]*channel)} }

func (x *index) add(e *sse.Entry) {
	for _, name := range e.Event.Channels {
		c := x.channels[name]
		if c == nil {
			c = x.begin(name)
		}
		c.seqs = append(c.seqs, e.Position.Seq)
	}
}

func (x *index) begin(name string) *channel {
	c := &channel{name: strings.Clone(name)} // it may be a part of what was published
	x.channels[c.name] = c
	x.names.insert(c)
	return c
}

// cut forgets the entries of a channel up to a seq.
func (x *index) cut(name string, through uint64) {
	c := x.channels[name]
	if c == nil {
		return
	}
	c.seqs = c.behind(through)
	if len(c.seqs) == 0 {
		delete(x.channels, c.name)
		x.names.remove(c)
	}
}

// maxLists is the most channels whose seqs are merged for a page. Of more of
// them, which only a pattern can stand for, the record itself is read.
const maxLists = 1024

// lists returns the seqs behind one of each channel that is one of these, or
// matches one of these patterns; false if they are too many.
func (x *index) lists(behind uint64, channels []string) (lists [][]uint64, ok bool) {
	add := func(c *channel) bool {
		if seqs := c.behind(behind); len(seqs) > 0 {
			lists = append(lists, seqs)
		}
		return len(lists) <= maxLists
	}
	visited := 0
	for _, item := range channels {
		if prefix, isPattern := strings.CutSuffix(item, "*"); isPattern {
			x.names.each(prefix, prefix, func(c *channel) bool {
				visited++
				return visited <= maxLists && add(c)
			})
		} else if c := x.channels[item]; c != nil {
			add(c)
		}
	}
	return lists, visited <= maxLists && len(lists) <= maxLists
}

// merge returns the least seqs of lists, each once, in order.
func merge(lists [][]uint64, most int) (merged []uint64) {
	if len(lists) == 1 {
		return append(merged, lists[0][:min(len(lists[0]), most)]...)
	}
	for i := len(lists)/2 - 1; i >= 0; i-- {
		sift(lists, i)
	}
	for len(lists) > 0 && len(merged) < most {
		least := lists[0][0]
		if n := len(merged); n == 0 || merged[n-1] != least {
			merged = append(merged, least)
		}
		if lists[0] = lists[0][1:]; len(lists[0]) == 0 {
			last := len(lists) - 1
			lists[0], lists = lists[last], lists[:last]
		}
		sift(lists, 0)
	}
	return merged
}

// sift moves a list down a heap to where its first seq belongs.
func sift(lists [][]uint64, i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(lists); child++ {
			if lists[child][0] < lists[least][0] {
				least = child
			}
		}
		if least == i {
			return
		}
		lists[i], lists[least] = lists[least], lists[i]
		i = least
	}
}

// A filter tells which entries are on any of the channels.
type filter struct {
	names    map[string]bool
	prefixes []string
}

func newFilter(channels []string) *filter {
	f := &filter{names: make(map[string]bool)}
	for _, item := range channels {
		if prefix, isPattern := strings.CutSuffix(item, "*"); isPattern {
			f.prefixes = append(f.prefixes, prefix)
		} else {
			f.names[item] = true
		}
	}
	return f
}

func (f *filter) matches(s *rawEntry) (found bool) {
	s.eachChannel(func(name []byte) bool {
		found = f.names[string(name)]
		for i := 0; i < len(f.prefixes) && !found; i++ {
			found = strings.HasPrefix(string(name), f.prefixes[i])
		}
		return !found
	})
	return found
}
