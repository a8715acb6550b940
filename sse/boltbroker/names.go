package boltbroker

import (
	"slices"
	"sort"
	"strings"
)

// names holds channels sorted by name, so that those with a prefix stand
// together. It is a list of lists, of which each is short enough for a channel
// to be put in between. The zero value is ready for use.
type names struct {
	groups [][]*channel
}

// maxGroup is how many channels a list holds.
const maxGroup = 512

// find returns where a name is, or belongs.
func (n *names) find(name string) (group, place int) {
	group = sort.Search(len(n.groups), func(i int) bool { return n.groups[i][0].name > name })
	if group--; group < 0 {
		return 0, 0
	}
	channels := n.groups[group]
	return group, sort.Search(len(channels), func(i int) bool { return channels[i].name >= name })
}

// insert adds a channel, whose name is not there yet.
func (n *names) insert(c *channel) {
	if len(n.groups) == 0 {
		n.groups = append(n.groups, []*channel{c})
		return
	}
	i, place := n.find(c.name)
	group := slices.Insert(n.groups[i], place, c)
	n.groups[i] = group
	if len(group) > maxGroup {
		half := slices.Clone(group[maxGroup/2:])
		n.groups[i] = slices.Delete(group, maxGroup/2, len(group))
		n.groups = slices.Insert(n.groups, i+1, half)
	}
}

// remove takes out a channel.
func (n *names) remove(c *channel) {
	i, place := n.find(c.name)
	n.groups[i] = slices.Delete(n.groups[i], place, place+1)
	if len(n.groups[i]) == 0 {
		n.groups = slices.Delete(n.groups, i, i+1)
	}
}

// each calls do with the channels from a name on that have a prefix, until it
// returns false.
func (n *names) each(prefix, from string, do func(*channel) bool) {
	i, place := n.find(from)
	for ; i < len(n.groups); i, place = i+1, 0 {
		for _, c := range n.groups[i][place:] {
			if !strings.HasPrefix(c.name, prefix) || !do(c) {
				return
			}
		}
	}
}
