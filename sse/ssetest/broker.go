package ssetest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A Promise is what a broker does with the entries that it took. Each includes
// those before it.
type Promise int

const (
	// OrdersOnly is the promise of a broker that hands entries to those who
	// tail and forgets them, as [sse.MemoryBroker] does. It is the zero value.
	OrdersOnly Promise = iota
	// KeepsUntilClose means that entries can be read until Close.
	KeepsUntilClose
	// KeepsAfterClose means that a record that was closed can be opened
	// again, by the same process or by another.
	KeepsAfterClose
	// KeepsAfterKill means that what was acknowledged is there even if the
	// process that published it was killed.
	KeepsAfterKill
)

// A Retention is how much a record keeps at most. Zero fields set no limit.
//
// A broker may keep more for a while, and somewhat more for good. It may not
// keep less: the newest entries that are within all limits stay.
type Retention struct {
	Entries int
	Age     time.Duration
	Bytes   int64 // of the entries' data, or of something close to it
}

// A BrokerConfig tells [RunBroker] how to open the broker that is tested, and
// what it promises.
type BrokerConfig struct {
	// Open opens the record at a place, or begins one if there is none. The
	// place is a directory of the test that is empty at first; a broker
	// whose records live elsewhere can take the path for a name. Several
	// records are open at once, but each of them once only.
	//
	// It returns an error that matches [errors.ErrUnsupported] if it cannot
	// heed one of the limits; the cases that need that limit are left out.
	// It is also called in a process of its own, if Promise says that the
	// record survives that.
	Open func(place string, keep Retention) (sse.Broker, error)

	// SetRetention changes how much an open record keeps. The broker is one
	// that Open returned. Nil means that this is impossible. Its errors are
	// treated as those of Open.
	SetRetention func(broker sse.Broker, keep Retention) error

	// Promise is what becomes of the entries.
	Promise Promise

	// Remote is set if the record lives in another process, so that
	// entries may reach those who tail a little after their Publish returned.
	Remote bool

	// Bubble is set if the broker can run in a bubble of testing/synctest,
	// which mostly means that it uses no sockets. The cases that need a
	// clock of their own are left out otherwise.
	Bubble bool
}

// RunBroker holds a broker to the contract of [sse.Broker]. Each rule is a
// subtest that logs it; `go test -v` shows them all. Those that the broker does
// not promise are left out, and the log names them.
//
// It is called once by a test, or once by each of several subtests: if the
// broker promises to survive a kill, RunBroker starts the test binary again,
// with the same test alone, and kills it. The test must therefore do nothing
// that matters before it calls RunBroker, and come to it each time.
//
// Two variables of the environment are heeded:
//
//	SSE_LONG=1     kill 240 times instead of a dozen, and look longer at random
//	SSE_SEED=<n>   repeat the random choices of the run that logged this seed
func RunBroker(t *testing.T, config BrokerConfig) {
	t.Helper()
	if runAsVictim(t, config) {
		return
	}
	for _, c := range brokerCases() {
		if reason := c.leftOut(config); reason != "" {
			t.Logf("left out: %s: %s: %s", c.name, reason, c.rule)
			continue
		}
		run := func(tt *testing.T) { c.try(tt, config, t.Name(), defaultPatience) }
		t.Run(c.name, func(t *testing.T) {
			if c.bubble {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		})
	}
}

// A brokerCase is one rule of the contract, and the code that checks it.
type brokerCase struct {
	name   string
	rule   string
	needs  Promise
	bubble bool // runs in a bubble, whose clock is its own
	run    func(t *trial)
}

func (c brokerCase) leftOut(config BrokerConfig) (reason string) {
	switch {
	case c.needs > config.Promise:
		return "not promised"
	case c.bubble && !config.Bubble:
		return "needs a bubble"
	}
	return ""
}

// try runs the case on a record of its own.
func (c brokerCase) try(tb testing.TB, config BrokerConfig, test string, patience time.Duration) {
	tb.Helper()
	tb.Logf("rule: %s", c.rule)
	t := &trial{TB: tb, config: config, test: test, place: tb.TempDir(), patience: patience}
	defer t.finish()
	c.run(t)
}

func brokerCases() []brokerCase {
	return []brokerCase{
		{name: "Dense", rule: "seq counts from 1 without a hole; the positions of an array are neighbours, in its order", run: dense},
		{name: "Content", rule: "an entry is what was published, field by field, whatever the caller does with its slice; times never step back", run: content},
		{name: "AllOrNone", rule: "a publish that fails leaves nothing behind: no entry, no ID, no ended channel", run: allOrNone},
		{name: "DoneContext", rule: "a publish whose context is done fails with its error and keeps nothing", run: doneContext},
		{name: "CancelledPublish", rule: "a context that ends while a publish runs either fails it, and nothing is kept, or comes too late, and all is", run: cancelledPublish},
		{name: "Repeats", rule: "an event whose ID is known is not appended; its position is that of the first, within one array too", run: repeats},
		{name: "RepeatsAtOnce", rule: "of several publishes of one ID at once, one is appended and all are answered with its position", run: repeatsAtOnce},
		{name: "RepeatWindow", rule: "an ID is known for sse.RepeatWindow, and forgotten some time later", bubble: true, run: repeatWindow},
		{name: "Ends", rule: "nothing follows the entry with which a channel ended; the error names the event, the channel and where it ended", run: ends},
		{name: "EndsInArray", rule: "nothing follows the end of a channel within one array either", run: endsInArray},
		{name: "EndsRepeated", rule: "a repeat of the event that ended its channel is answered with its position", run: endsRepeated},

		{name: "TailAnywhere", rule: "Tail hands over what is kept behind a position, then calls once without entries, then each new entry", run: tailAnywhere},
		{name: "TailGone", rule: "Tail fails with ErrGone behind positions that are not kept, of another epoch, or that never were", run: tailGone},
		{name: "TailLive", rule: "entries reach every tail in order and without a hole while several publish, in this process before Publish returns", run: tailLive},
		{name: "TailCancelled", rule: "Tail ends with its context; deliver is never called concurrently, nor after Tail has returned", run: tailCancelled},
		{name: "TailClosed", rule: "Close ends every Tail; deliver is not called any more when Close has returned, the first or another", run: tailClosed},

		{name: "ReadEdges", rule: "zero stands before the oldest entry, the newest has nothing behind it; other epochs and what never was give ErrGone", run: readEdges},
		{name: "ReadPages", rule: "pages hold about as many bytes as asked for, lead on behind Through, and end at the newest entry", run: readPages},
		{name: "ReadChannels", rule: "names and prefix patterns select entries, each once however many of its channels are asked for", run: readChannels},
		{name: "OwnSlices", rule: "who called owns the slices of a page and of a state", run: ownSlices},
		{name: "Model", rule: "Read, Count and Tail agree with what was published, at any position, for any channels", run: model},

		{name: "Concurrent", rule: "whoever reads or tails while others publish and the oldest entries go sees no hole, or is told ErrGone", run: concurrent},

		{name: "Trimmed", rule: "a record gives up its oldest entries, no more than it must; behind them reads go on, before them they fail with ErrGone", needs: KeepsUntilClose, run: trimmed},
		{name: "TrimmedBytes", rule: "a record that is limited in bytes gives up its oldest entries", needs: KeepsUntilClose, run: trimmedBytes},
		{name: "TrimmedByAge", rule: "a record that is limited in age keeps what is young and gives up what is old", needs: KeepsUntilClose, bubble: true, run: trimmedByAge},
		{name: "TrimmedEmpty", rule: "a record that lost its last entry keeps its head, and goes on behind it", needs: KeepsUntilClose, run: trimmedEmpty},
		{name: "TrimmedRepeats", rule: "an ID is known for its time even if the entry is gone", needs: KeepsUntilClose, run: trimmedRepeats},
		{name: "TrimmedEnds", rule: "an ended channel is known as long as the entry that ended it is kept, and may begin anew after that", needs: KeepsUntilClose, run: trimmedEnds},

		{name: "Reopened", rule: "a record that is opened again has its epoch, head, entries, IDs and ended channels", needs: KeepsAfterClose, run: reopened},
		{name: "ReopenedEmpty", rule: "a record that never had an entry has its epoch when it is opened again", needs: KeepsAfterClose, run: reopenedEmpty},
		{name: "ReopenedTrimmed", rule: "what is gone stays gone when a record is opened again, and its head stays", needs: KeepsAfterClose, run: reopenedTrimmed},

		{name: "Closed", rule: "after Close everything fails with ErrClosed; Close may be called again, and at once", run: closed},
		{name: "CloseWhilePublishing", rule: "a publish that Close overtakes fails with ErrClosed and keeps nothing, or succeeds and is kept", run: closeWhilePublishing},
		{name: "CloseWhileReading", rule: "whoever reads, counts or tails when Close overtakes it succeeds, or is told ErrClosed", run: closeWhileReading},
		{name: "Killed", rule: "what was acknowledged survives a kill at its position; all else is whole or absent; repeats by ID are safe", needs: KeepsAfterKill, run: killed},
	}
}
