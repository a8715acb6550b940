package main

import (
	"testing"
	"time"
)

func TestMeterRate(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name          string
		before, after map[string]uint64
		elapsed       time.Duration
		want          int64
	}{
		{
			name:    "growth over one second",
			before:  map[string]uint64{"a": 100},
			after:   map[string]uint64{"a": 350},
			elapsed: time.Second, want: 250,
		},
		{
			name:    "growth over a longer time",
			before:  map[string]uint64{"a": 0},
			after:   map[string]uint64{"a": 1000},
			elapsed: 4 * time.Second, want: 250,
		},
		{
			name:    "devices are added up",
			before:  map[string]uint64{"a": 10, "b": 20},
			after:   map[string]uint64{"a": 15, "b": 30},
			elapsed: time.Second, want: 15,
		},
		{
			name:    "counter went backwards",
			before:  map[string]uint64{"a": 5000},
			after:   map[string]uint64{"a": 10},
			elapsed: time.Second, want: 0,
		},
		{
			name:    "a reset takes nothing from the others",
			before:  map[string]uint64{"a": 5000, "b": 100},
			after:   map[string]uint64{"a": 10, "b": 300},
			elapsed: time.Second, want: 200,
		},
		{
			name:    "device appeared",
			before:  map[string]uint64{"a": 100},
			after:   map[string]uint64{"a": 101, "b": 1 << 40},
			elapsed: time.Second, want: 1,
		},
		{
			name:    "device vanished",
			before:  map[string]uint64{"a": 100, "b": 1 << 40},
			after:   map[string]uint64{"a": 101},
			elapsed: time.Second, want: 1,
		},
		{
			name:    "no time passed",
			before:  map[string]uint64{"a": 100},
			after:   map[string]uint64{"a": 200},
			elapsed: 0, want: 0,
		},
		{
			name:    "clock went backwards",
			before:  map[string]uint64{"a": 100},
			after:   map[string]uint64{"a": 200},
			elapsed: -time.Second, want: 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m meter
			if got := m.rate(start, tt.before); got != 0 {
				t.Errorf("first rate = %d, want 0", got)
			}
			if got := m.rate(start.Add(tt.elapsed), tt.after); got != tt.want {
				t.Errorf("rate = %d, want %d", got, tt.want)
			}
		})
	}
}
