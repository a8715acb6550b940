//go:build linux

package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations, to 1 part in 64.
type histogram struct {
	counts [58*64 + 64]int
	total  int
}

// add counts a duration, which is not negative.
func (h *histogram) add(d time.Duration) {
	shift := max(bits.Len64(uint64(d))-7, 0)
	h.counts[shift*64+int(uint64(d)>>shift)]++
	h.total++
}

// merge counts what another one has counted, too.
func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile returns the duration that the given part of all does not exceed.
func (h *histogram) quantile(part float64) time.Duration {
	below := int(part * float64(h.total))
	for i, n := range h.counts {
		if below -= n; below < 0 {
			shift := max(i/64-1, 0)
			return time.Duration((i - shift*64)) << shift
		}
	}
	return 0
}
