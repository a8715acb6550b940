//go:build linux

package main

import "context"

// A step is one of those that a round consists of.
type step struct {
	name string
	do   func(*contestant, context.Context) error
}

var (
	stepMemory = step{"idle streams", (*contestant).measureMemory}
	stepShared = step{"idle streams that share connections", (*contestant).measureShared}
	stepSingle = step{"one event at a time", (*contestant).measureSingle}
	stepBusy   = step{"events outstanding", (*contestant).measureBusy}
	stepSlow   = step{"low rate", (*contestant).measureSlow}
	stepTwo    = step{"one of two channels", (*contestant).measureTwo}
	stepMany   = step{"one of many channels", (*contestant).measureMany}
)

// The kinds of fan-out that there are.
var (
	plainFanout = fanoutKind{
		title: "HTTP/1.1", protocol: plainHTTP1, streams: 5000, events: 100,
		engines: []string{"loop", "caddy", "naive"},
		steps:   []step{stepMemory, stepSingle, stepBusy, stepSlow, stepTwo, stepMany},
	}
	tlsFanout = fanoutKind{
		title: "HTTP/1.1 over TLS", protocol: secureH1, streams: 2000, events: 100,
		engines: []string{"naive", "caddy"},
		steps:   []step{stepMemory, stepSingle, stepBusy, stepSlow},
	}
	h2Fanout = fanoutKind{
		title: "HTTP/2 over TLS", protocol: secureH2, streams: 2000, events: 100,
		engines: []string{"naive", "caddy"},
		steps:   []step{stepMemory, stepShared, stepSingle, stepBusy, stepSlow},
	}
	peersFanout = fanoutKind{
		title: "Beside others, HTTP/1.1", protocol: plainHTTP1, streams: 3000, events: 40,
		engines: []string{"loop", "caddy", "nchan", "pushpin", "express"},
		steps:   []step{stepMemory, stepSingle, stepBusy, stepSlow},
	}
)

// The bounds of what is promised, in proportion to the first engine where it is
// no number of bytes.
const (
	mostPlainMemory = 1024
	mostPlainSingle = 1.25
	mostPlainBusy   = 0.15
	mostMany        = 1.3
	mostTLSMemory   = 12 << 10
	mostTLSSingle   = 0.6
	mostTLSBusy     = 0.25
	mostH2Memory    = 0.75
	mostH2Busy      = 0.4
)

// checks returns what is promised of the protocol.
func (r fanoutReport) checks() []check {
	named := func(what string) string { return r.set.title + ": " + what }
	of := func(what string, limit float64, value func(round) float64) check {
		return newCheck(named(what), limit, r.rounds, value)
	}
	memory := func(x round) float64 { return x["caddy"].memory }
	single := func(x round) float64 { return r.ratio(x, "caddy", sample.getSingle) }
	busy := func(x round) float64 { return r.ratio(x, "caddy", sample.getBusy) }
	base := r.set.engines[0]
	switch r.set.title {
	case plainFanout.title:
		return []check{
			of("idle bytes a stream", mostPlainMemory, memory),
			of("CPU of single events ÷ loop", mostPlainSingle, single),
			of("CPU under 16 publishers ÷ loop", mostPlainBusy, busy),
			of("a publish to one of many channels ÷ of two", mostMany, func(x round) float64 { return x["caddy"].manyOverTwo() }),
		}
	case tlsFanout.title:
		return []check{
			of("idle bytes a stream", mostTLSMemory, memory),
			of("CPU of single events ÷ naive", mostTLSSingle, single),
			of("CPU under 16 publishers ÷ naive", mostTLSBusy, busy),
		}
	case h2Fanout.title:
		return []check{
			of("idle bytes a stream ÷ naive", mostH2Memory, func(x round) float64 { return x["caddy"].memory / x[base].memory }),
			of("CPU under 16 publishers ÷ naive", mostH2Busy, busy),
		}
	}
	return nil
}
