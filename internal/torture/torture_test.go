package torture

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func TestMain(m *testing.M) { ssetest.Main(caddytest.Main{M: m}) }

const (
	// shortRound is what a round takes where TORTURE_TIME is not set: one of
	// each scenario.
	shortRound = 1000 * time.Millisecond
	// longRound bounds what a history must hold.
	longRound = 2 * time.Minute
	// shownViolations is how many of them a failure shows.
	shownViolations = 10
)

// TestTorture holds promises 1 and 2: no event is lost, doubled, reordered or
// missing without a reset that says so, whatever happens to the server and the
// connections. TORTURE_TIME is how long it goes on, TORTURE_SEED what it does.
func TestTorture(t *testing.T) {
	seed, rounds, length := plan(t, len(scenarios), shortRound)
	for round := range rounds {
		s := scenarios[round%len(scenarios)]
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s, rand.New(rand.NewPCG(seed, uint64(round))))
			w.run(length)
			report := w.history.Check()
			t.Logf("TORTURE_SEED=%d, round %d, %s\n%s\n%s", seed, round, s.name, &w.counts, report)
			for _, v := range report.Violations[:min(len(report.Violations), shownViolations)] {
				t.Errorf("%s", v)
			}
		})
	}
}

// plan returns what the environment says of a torture: the seed, how many rounds there
// are, which is a multiple of the kinds, and for how long each goes on.
func plan(t *testing.T, kinds int, short time.Duration) (seed uint64, rounds int, length time.Duration) {
	t.Helper()
	seed = rand.Uint64()
	if text := os.Getenv("TORTURE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("TORTURE_SEED: %s", err)
		}
	}
	rounds, length = kinds, short
	if text := os.Getenv("TORTURE_TIME"); text != "" {
		total, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("TORTURE_TIME: %s", err)
		}
		for total > time.Duration(rounds)*longRound {
			rounds += kinds
		}
		length = total / time.Duration(rounds)
	}
	t.Logf("TORTURE_SEED=%d, %d rounds of %s", seed, rounds, length)
	return seed, rounds, length
}
