package torture

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// chaos does to the server what may happen to one.
func (w *world) chaos(length time.Duration) {
	longest := min(length/5, 6*time.Second)
	for end := time.Now().Add(length); time.Now().Before(end); {
		pace(w.random, longest)
		if w.random.IntN(10) >= w.scenario.restarts {
			w.reload()
			continue
		}
		switch w.random.IntN(4) {
		case 0:
			w.stop()
		case 1:
			w.kill()
			w.launch()
			pace(w.random, 300*time.Millisecond)
			w.kill() // while it starts, or just has
		default:
			w.kill()
		}
		pace(w.random, longest/2)
		w.start()
	}
}

// pace lets some time pass. Nothing is awaited.
func pace(random *rand.Rand, longest time.Duration) {
	time.Sleep(upTo(random, longest))
}

// base is the address of the server.
func (w *world) base() string { return fmt.Sprintf("http://127.0.0.1:%d", w.port) }

// launch starts a server without waiting for it.
func (w *world) launch() {
	w.t.Helper()
	w.process = caddytest.Run(w.t, w.caddyfile(w.random))
}

func (w *world) start() {
	w.t.Helper()
	w.launch()
	w.process.WaitServing(w.t, w.base()+"/sse/health")
}

// kill leaves the server no time for anything.
func (w *world) kill() {
	w.t.Helper()
	w.counts.kills.Add(1)
	if err := w.process.Process.Kill(); err != nil {
		w.t.Fatalf("kill: %s", err)
	}
	_ = w.process.Wait(patience) // the error is that it was killed
}

func (w *world) stop() {
	w.t.Helper()
	w.counts.stops.Add(1)
	if err := w.administer("/stop", ""); err != nil {
		w.t.Fatalf("stop: %s", err)
	}
	if err := w.process.Wait(patience); err != nil {
		w.t.Errorf("stop: %s", err)
	}
}

func (w *world) reload() {
	w.t.Helper()
	w.counts.reloads.Add(1)
	if err := w.administer("/load", w.caddyfile(w.random)); err != nil {
		w.t.Fatalf("reload: %s", err)
	}
}

func (w *world) administer(path, body string) error {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", w.admin, path), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}
