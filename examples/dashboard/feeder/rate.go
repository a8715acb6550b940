package main

import (
	"math"
	"time"
)

// meter turns counters that only ever grow, one per device, into one rate over
// all of them. The zero value is ready to use.
type meter struct {
	at       time.Time
	counters map[string]uint64
}

// rate returns the growth per second since the last call; the first call
// returns 0. Each device is compared with itself: one that appeared would
// otherwise bring all that it ever counted, and one whose counter went
// backwards (it was reset, or plugged in anew) adds nothing instead of
// taking from the others. It keeps counters.
func (m *meter) rate(at time.Time, counters map[string]uint64) int64 {
	var grown uint64
	for device, count := range counters {
		if before, known := m.counters[device]; known && count > before {
			grown += count - before
		}
	}
	elapsed := at.Sub(m.at).Seconds()
	m.at, m.counters = at, counters
	if elapsed <= 0 {
		return 0
	}
	return int64(math.Round(float64(grown) / elapsed))
}
