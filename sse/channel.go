package sse

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxChannel is the longest channel name, in bytes.
const MaxChannel = 255

// ErrChannel is matched by the errors of [ValidateChannel] and [ValidatePattern].
var ErrChannel = errors.New("not a channel name")

// ValidateChannel returns an error that says what to mend unless name can be
// published on: 1 to 255 bytes of UTF-8 without control characters, white
// space or any of * , ? #.
func ValidateChannel(name string) error {
	var reason string
	switch {
	case name == "":
		reason = "it is empty"
	case len(name) > MaxChannel:
		reason = fmt.Sprintf("it has %d bytes, %d at most are allowed", len(name), MaxChannel)
	case !utf8.ValidString(name):
		reason = "it is not valid UTF-8"
	default:
		if i := strings.IndexFunc(name, forbidden); i >= 0 {
			r, _ := utf8.DecodeRuneInString(name[i:])
			reason = fmt.Sprintf("%q is not allowed in it", r)
		}
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%.64q is %w: %s", name, ErrChannel, reason)
}

func forbidden(r rune) bool {
	return strings.ContainsRune("*,?#", r) || unicode.IsControl(r) || unicode.IsSpace(r)
}

// ValidatePattern returns an error that says what to mend unless s can be
// subscribed to: a channel name, or a prefix pattern, which is the beginning
// of a name followed by one `*`. The pattern `*` alone is every channel.
func ValidatePattern(s string) error {
	prefix, isPattern := strings.CutSuffix(s, "*")
	switch {
	case isPattern && prefix == "":
		return nil
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("%.64q is %w or prefix pattern: * is allowed as the last character only", s, ErrChannel)
	}
	return ValidateChannel(prefix)
}

// Covers reports whether every channel that asked stands for is one that
// granted stands for too. Both are a channel name or a prefix pattern that
// [ValidatePattern] accepts; it is how an allow list is checked.
func Covers(granted, asked string) bool {
	prefix, isPattern := strings.CutSuffix(granted, "*")
	if !isPattern {
		return granted == asked
	}
	return strings.HasPrefix(strings.TrimSuffix(asked, "*"), prefix)
}

// coveredBy reports whether one of the names and patterns stands for all that
// asked does.
func coveredBy(granted []string, asked string) bool {
	return slices.ContainsFunc(granted, func(g string) bool { return Covers(g, asked) })
}

// A patternSet finds quickly whether one of many names and patterns stands for
// another.
type patternSet struct {
	items   map[string]struct{} // names, and patterns with their *
	lengths []int               // of the patterns' prefixes, each once
}

func newPatternSet(items []string) patternSet {
	x := patternSet{items: make(map[string]struct{}, len(items))}
	for _, item := range items {
		x.items[item] = struct{}{}
		if n := len(item) - 1; isPattern(item) && !slices.Contains(x.lengths, n) {
			x.lengths = append(x.lengths, n)
		}
	}
	return x
}

// findOther returns one of the set that stands for all that item does, other than
// by being the same.
func (x *patternSet) findOther(item string) (by string, ok bool) {
	text, pattern := strings.CutSuffix(item, "*")
	for _, n := range x.lengths {
		if n > len(text) || (pattern && n == len(text)) {
			continue
		}
		if _, ok := x.items[text[:n]+"*"]; ok {
			return text[:n] + "*", true
		}
	}
	return "", false
}

// find is findOther, or the item itself.
func (x *patternSet) find(item string) (by string, ok bool) {
	if _, same := x.items[item]; same {
		return item, true
	}
	return x.findOther(item)
}

func (x *patternSet) coversOther(item string) bool {
	_, ok := x.findOther(item)
	return ok
}

func (x *patternSet) covers(item string) bool {
	_, ok := x.find(item)
	return ok
}

// common returns the fewest names and patterns that stand for what both lists
// stand for.
func common(a, b []string) []string {
	inA, inB := newPatternSet(a), newPatternSet(b)
	var both []string
	for _, y := range b {
		if inA.covers(y) {
			both = append(both, y)
		}
	}
	for _, x := range a {
		if inB.coversOther(x) {
			both = append(both, x)
		}
	}
	return cover(both)
}

// cover returns the fewest of the names and patterns that stand for the same
// channels, so that an event on one channel reaches a subscriber by one way
// only. The argument is left as it is.
func cover(patterns []string) []string {
	if len(patterns) == 1 {
		return patterns
	}
	all := newPatternSet(patterns)
	seen := make(map[string]struct{}, len(patterns))
	kept := make([]string, 0, len(patterns))
	for _, p := range patterns {
		if _, again := seen[p]; !again && !all.coversOther(p) {
			kept = append(kept, p)
			seen[p] = struct{}{}
		}
	}
	return kept
}
