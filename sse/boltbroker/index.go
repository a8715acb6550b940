package boltbroker

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// pageEntries is how many entries a page holds at most.
	pageEntries = 1024
	// pageSpan is how much of the record a page of patterns looks at, which
	// may stand for every channel there is.
	pageSpan = 1 << 16
)

// An index knows the seqs of the entries of each channel, in order.
type index map[string][]uint64

func (x index) add(e *sse.Entry) {
	for _, name := range e.Event.Channels {
		x[name] = append(x[name], e.Position.Seq)
	}
}

// dropOldest takes out an entry, than which there is no older one.
func (x index) dropOldest(e *sse.Entry) {
	for _, name := range e.Event.Channels {
		seqs := x[name]
		if len(seqs) <= 1 {
			delete(x, name)
		} else {
			x[name] = seqs[1:]
		}
	}
}

// find returns the next entries behind a seq that are on any of the channels,
// and the seq through which these are all.
func (x index) find(after, head uint64, channels []string) (found []uint64, through uint64) {
	lists, end := x.lists(channels), head
	if slices.ContainsFunc(channels, isPattern) {
		end = min(head, after+pageSpan)
	}
	for _, seqs := range lists {
		first := search(seqs, after)
		seqs = seqs[first:search(seqs, end)]
		found = append(found, seqs[:min(len(seqs), pageEntries)]...)
	}
	if len(lists) > 1 {
		slices.Sort(found)
		found = slices.Compact(found)
	}
	if len(found) >= pageEntries {
		found = found[:pageEntries]
		return found, found[pageEntries-1]
	}
	return found, end
}

// lists returns the seqs of each channel that is one of these, or matches one
// of these patterns.
func (x index) lists(channels []string) (lists [][]uint64) {
	names := make(map[string]struct{})
	for _, item := range channels {
		if !isPattern(item) {
			names[item] = struct{}{}
		}
	}
	if slices.ContainsFunc(channels, isPattern) {
		for name := range x {
			if slices.ContainsFunc(channels, func(item string) bool { return sse.Covers(item, name) }) {
				names[name] = struct{}{}
			}
		}
	}
	for name := range maps.Keys(names) {
		if seqs := x[name]; len(seqs) > 0 {
			lists = append(lists, seqs)
		}
	}
	return lists
}

// search returns the index of the first seq behind another.
func search(seqs []uint64, after uint64) int {
	return sort.Search(len(seqs), func(i int) bool { return seqs[i] > after })
}

func isPattern(s string) bool { return strings.HasSuffix(s, "*") }
