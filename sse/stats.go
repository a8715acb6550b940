package sse

import "sync/atomic"

// A CloseReason says why the hub ended a stream. It is sent to the client in
// `hub:close`.
type CloseReason string

// The reasons for which a hub ends a stream by itself.
const (
	CloseDrain   CloseReason = "drain"   // the hub stops
	CloseExpired CloseReason = "expired" // the stream reached its greatest age, or what allowed it expired
	CloseBusy    CloseReason = "busy"    // the hub took no more streams, or could not read the record
	CloseEnded   CloseReason = "ended"   // all of its channels have ended

	CloseKicked   CloseReason = "kicked"   // see Hub.Kick
	CloseReplaced CloseReason = "replaced" // the client opened another stream of the same connection
	CloseSlow     CloseReason = "slow"     // the client read too slowly
)

// CloseClient is the reason of a stream that the hub did not end: the client
// left, or the connection broke.
const CloseClient CloseReason = "client"

var closeReasons = []CloseReason{CloseClient, CloseDrain, CloseExpired, CloseBusy, CloseEnded, CloseKicked, CloseReplaced, CloseSlow}

// A ResetReason says why events are missing.
type ResetReason string

// The reasons for which events can be missing.
const (
	ResetExpired ResetReason = "expired" // older than what is kept
	ResetEpoch   ResetReason = "epoch"   // the record began anew
	ResetLimit   ResetReason = "limit"   // more than one replay may hold
	ResetUnknown ResetReason = "unknown" // the position is not one of this hub
)

var resetReasons = []ResetReason{ResetExpired, ResetEpoch, ResetLimit, ResetUnknown}

// Stats are a hub's numbers. Counters run from the hub's start.
type Stats struct {
	// Position is the newest event's.
	Position Position
	// Streams is how many are open, Channels how many the hub knows,
	// Patterns how many prefix patterns are listened to.
	Streams, Channels, Patterns int
	// KeptBytes is the memory of all kept events and of their channels.
	KeptBytes int64
	// Published counts events; Delivered counts an event for each stream
	// that it was written to.
	Published, Delivered uint64
	// Closed counts streams that ended, by reason.
	Closed map[CloseReason]uint64
	// Resets counts what subscribers were told to have missed, once for
	// each channel or pattern named in a reset.
	Resets map[ResetReason]uint64
	// Away is how many sessions are kept that were changed and whose clients
	// are gone. Forgotten counts those that were given up before their time.
	Away      int
	Forgotten uint64
}

type counters struct {
	published atomic.Uint64
	delivered atomic.Uint64
	forgotten atomic.Uint64 // sessions
	closed    reasonCounter[CloseReason]
	resets    reasonCounter[ResetReason]
}

// A reasonCounter counts by a few reasons that are known beforehand.
type reasonCounter[R ~string] struct {
	counts [8]atomic.Uint64
}

func (c *reasonCounter[R]) add(reasons []R, reason R) {
	for i, r := range reasons {
		if r == reason {
			c.counts[i].Add(1)
		}
	}
}

func (c *reasonCounter[R]) snapshot(reasons []R) map[R]uint64 {
	m := make(map[R]uint64, len(reasons))
	for i, r := range reasons {
		m[r] = c.counts[i].Load()
	}
	return m
}

// Stats returns the hub's numbers as they are now.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{
		Position:  Position{Epoch: h.epoch, Seq: h.settled.Load()},
		Streams:   len(h.subscribers),
		Channels:  len(h.index.channels),
		Patterns:  len(h.index.patterns),
		KeptBytes: h.size,
		Published: h.stats.published.Load(),
		Delivered: h.stats.delivered.Load(),
		Closed:    h.stats.closed.snapshot(closeReasons),
		Resets:    h.stats.resets.snapshot(resetReasons),
		Away:      h.away.Len(),
		Forgotten: h.stats.forgotten.Load(),
	}
}
