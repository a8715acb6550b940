package caddymodule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// A browser is a page of a real Chromium.
type browser struct {
	t   testing.TB
	ctx context.Context
}

// openBrowser starts a Chromium that reaches nothing but this machine.
func openBrowser(t testing.TB) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath("chromium"),
		chromedp.NoSandbox, // it does not run as root otherwise
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.WindowSize(1440, 900),
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancelAllocator)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %s", err)
		}
		cancel()
	})
	// The first run starts the browser, which lives as long as its context.
	if _, err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("chromium is needed by the tests: %s", err)
	}
	return &browser{t, ctx}
}

// do runs an action for a limited time.
func do[T any](b *browser, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 2*patience)
	defer cancel()
	return chromedp.Run(ctx, action)
}

func (b *browser) open(url string) {
	b.t.Helper()
	if _, err := do(b, chromedp.Navigate(url)); err != nil {
		b.t.Fatalf("open %s: %s", url, err)
	}
}

// await waits until a JavaScript expression is true.
func (b *browser) await(expression string) {
	b.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(2 * patience)
	for {
		// It fails while the page is being loaded.
		done, err := do(b, chromedp.Evaluate[bool](expression))
		if done && err == nil {
			return
		}
		if time.Now().After(deadline) {
			page, _ := do(b, chromedp.Evaluate[string](`document.body.innerText + JSON.stringify(window.log ?? window.states ?? null)`))
			b.t.Fatalf("waited for %s (error: %v); the page shows:\n%s", expression, err, page)
		}
		<-ticker.C
	}
}

// awaitText waits until an element shows the text.
func (b *browser) awaitText(selector, text string) {
	b.t.Helper()
	b.await(fmt.Sprintf(`document.querySelector(%q).textContent === %q`, selector, text))
}

// evaluate returns what a JavaScript expression gives.
func evaluate[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := do(b, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %s", expression, err)
	}
	return value
}

// An exampleSite is Caddyfile.example with other ports.
type exampleSite struct {
	hubSite
	caddyfile string
	admin     string
}

func newExampleSite(t *testing.T) exampleSite {
	t.Helper()
	text, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	site := exampleSite{
		hubSite: hubSite{plain: caddytest.FreePort(t), api: caddytest.FreePort(t)},
		admin:   fmt.Sprintf("127.0.0.1:%d", caddytest.FreePort(t)),
	}
	for _, port := range []string{"http://localhost:8080 {", "http://localhost:9090, http://127.0.0.1:9090 {"} {
		if strings.Count(string(text), port) != 1 {
			t.Fatalf("Caddyfile.example has no %q, which this test needs", port)
		}
	}
	site.caddyfile = strings.NewReplacer(
		"localhost:8080", fmt.Sprintf("localhost:%d", site.plain),
		"localhost:9090", fmt.Sprintf("localhost:%d", site.api),
		"127.0.0.1:9090", fmt.Sprintf("127.0.0.1:%d", site.api),
	).Replace(string(text))
	t.Setenv("CADDY_ADMIN", site.admin)
	return site
}

func (s exampleSite) run(t testing.TB) *caddytest.Process {
	t.Helper()
	process := caddytest.Run(t, s.caddyfile)
	process.WaitServing(t, s.apiURL("/health"))
	process.WaitServing(t, s.page())
	return process
}

func (s exampleSite) page() string { return fmt.Sprintf("http://localhost:%d/", s.plain) }

// feed publishes figures as the feeder does.
func (s exampleSite) feed(t testing.TB, cpu float64) {
	t.Helper()
	now := time.Now().UnixMilli()
	body, err := json.Marshal([]any{
		map[string]any{"channel": "metrics-cpu", "event": "cpu", "data": map[string]any{"time": now, "total": cpu, "cores": []float64{cpu, cpu}}},
		map[string]any{"channel": "metrics-memory", "event": "memory", "data": map[string]any{"time": now, "used": 1 << 30, "total": 4 << 30, "cached": 1 << 20}},
		map[string]any{"channel": "metrics-network", "event": "network", "data": map[string]any{"time": now, "received": 2048, "sent": 1024}},
		map[string]any{"channel": "metrics-disk", "event": "disk", "data": map[string]any{"time": now, "read": 0, "written": 3 << 20}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.call(t, http.MethodPost, "/publish", "application/json", string(body), nil)
}

// TestDashboard holds what the README promises of Caddyfile.example and its
// page: live values, a reload that nobody notices, a restart after which the
// page comes back by itself and says what it missed.
func TestDashboard(t *testing.T) {
	site := newExampleSite(t)
	process := site.run(t)
	site.feed(t, 12.5)
	page := openBrowser(t)
	page.open(site.page())

	page.await(`document.querySelector("#status").dataset.state === "live"`)
	page.awaitText("#cpu-value", "12.5 %") // replayed: it was published before the page was there
	page.awaitText("#memory-value", "25.0 %")
	page.awaitText("#network-received-value", "2.0 KiB/s")
	page.awaitText("#disk-written-value", "3.0 MiB/s")
	page.awaitText("#total-events", "4")
	site.feed(t, 34.5)
	page.awaitText("#cpu-value", "34.5 %")

	evaluate[bool](page, `window.states = [];
		new MutationObserver(() => states.push(document.querySelector("#status").dataset.state))
			.observe(document.querySelector("#status"), { attributes: true }); true`)
	reloadProcess(t, site.admin, site.caddyfile)
	site.feed(t, 56.5)
	page.awaitText("#cpu-value", "56.5 %")
	page.awaitText("#total-events", "12")
	if states := evaluate[[]string](page, "states"); len(states) > 0 {
		t.Errorf("over a reload the page's state became %v, want it to stay live", states)
	}
	if got := site.numbers(t); got.Streams != 1 || got.Closed["drain"]+got.Closed["client"] > 0 {
		t.Errorf("over a reload the hub's numbers became %+v, want the one stream to go on", got)
	}

	// It is stopped in good order.
	stop(t, process, syscall.SIGTERM, 5*time.Second)
	page.await(`document.querySelector("#status").dataset.state === "reconnecting"`)
	page.awaitText("#status", "Reconnecting… (drain)")
	process = site.run(t)
	page.expectReset("1")
	site.feed(t, 67.5)
	page.awaitText("#cpu-value", "67.5 %")

	// It is killed.
	evaluate[bool](page, `document.querySelector("#missed-dismiss").click(); true`)
	page.await(`document.querySelector("#status").dataset.state === "live"`)
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	page.await(`document.querySelector("#status").dataset.state === "reconnecting"`)
	site.run(t)
	page.expectReset("2")
	site.feed(t, 78.5)
	page.awaitText("#cpu-value", "78.5 %")
}

// expectReset waits for the page to say that all four channels were reset,
// which it has done so many times then.
func (b *browser) expectReset(times string) {
	b.t.Helper()
	b.await(`document.querySelector("#status").dataset.state === "missed"`)
	b.awaitText("#missed-count", times)
	b.await(`!document.querySelector("#missed").hidden`)
	holes := evaluate[string](b, `document.querySelector("#missed-detail").innerText`)
	for _, name := range []string{"cpu", "memory", "network", "disk"} {
		if !strings.Contains(holes, "metrics-"+name+" epoch:") {
			b.t.Errorf("the page says %q, want the reset of metrics-%s with reason epoch", holes, name)
		}
	}
}

// eventSourcePage logs what an EventSource fires.
const eventSourcePage = `<!doctype html><title>EventSource</title><body><script>
window.log = [];
const source = new EventSource("/events?channel=news");
source.onmessage = ({ data, lastEventId }) => log.push({ type: "onmessage", data, lastEventId });
source.onerror = () => log.push({ type: "error", readyState: source.readyState });
for (const name of ["hub:open", "hub:close", "stock"]) {
  source.addEventListener(name, ({ type, data, lastEventId }) => log.push({ type, data, lastEventId }));
}
</script>`

func (s hubSite) eventSourceCaddyfile(t testing.TB, settings string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/index.html", []byte(eventSourcePage), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.caddyfile("", fmt.Sprintf("sse /events* {\n allow news*\n %s\n }\n root %s\n file_server", settings, dir))
}

func (b *browser) log() []fired {
	b.t.Helper()
	return evaluate[[]fired](b, "log")
}

// TestBrowserEventSource holds the promises of section 1 for the EventSource
// of a browser, without a line of JavaScript of ours in between: onmessage for
// the default event only, the others by name, and ids.
func TestBrowserEventSource(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.eventSourceCaddyfile(t, ""))
	page := openBrowser(t)
	page.open(site.url(wires[0], "/"))
	page.await("log.length === 1")
	first := site.publish(t, "news", "", "a\nb\n")
	second := site.publish(t, "news", "stock", `{"price":1}`)
	third := site.publish(t, "news", "other", "nobody listens")
	last := site.publish(t, "news", "", "")
	page.await("log.length >= 4")
	got := page.log()
	if got[0].Type != "hub:open" || !strings.Contains(got[0].Data, `"resume":"fresh"`) {
		t.Errorf("the page was fired %+v first, want hub:open with resume fresh", got[0])
	}
	want := []fired{
		{Type: "onmessage", Data: "a\nb\n", LastEventID: first},
		{Type: "stock", Data: `{"price":1}`, LastEventID: second},
		{Type: "onmessage", Data: "", LastEventID: last},
	}
	if !slices.Equal(got[1:], want) {
		t.Errorf("the page was fired %+v, want %+v (and nothing for %s)", got[1:], want, third)
	}
}

// TestReadmeScript holds that the page's script in the README does what it says:
// it logs the events, and fetches anew when the hub resets.
func TestReadmeScript(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := `"use strict"; const logged = [], refetched = [];
console.log = (...args) => logged.push(args.at(-1));
const refetch = resets => refetched.push(resets);
`
	for _, block := range regexp.MustCompile("(?ms)^```js\n(.*?)^```$").FindAllSubmatch(text, -1) {
		script += string(block[1])
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"index.html": "<!doctype html><script src=/page.js></script>", "page.js": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site := newHubSite(t)
	route := "sse /events* {\n allow stocks-* news\n %s\n }\n root " + dir + "\n file_server"
	site.load(t, site.caddyfile("", fmt.Sprintf(route, "")))
	page := openBrowser(t)
	page.open(site.url(wires[0], "/"))
	site.awaitStreams(t, 1)
	site.publish(t, "stocks-ACME", "stockUpdate", `{"price":1}`)
	site.publish(t, "news", "", "hello")
	page.await(`JSON.stringify(logged) === '[{"price":1},"hello"]' && refetched.length === 0`)

	// Streams end again and again, and whoever missed two events is reset.
	site.load(t, site.caddyfile("", fmt.Sprintf(route, "max_age 200ms\n retry 50ms\n limits {\n replay 1\n }")))
	await(t, func() bool {
		site.publish(t, "news", "", "more")
		return evaluate[bool](page, `refetched.flat().some(r => r.channel === "news" && r.reason === "limit")`)
	}, func() string { return "the page was not reset" })
}

// TestBrowserRotation holds promise 1 for a browser whose streams the server
// ends again and again: its own reconnects present the last id, and nothing is
// lost or doubled while events are published without a pause.
func TestBrowserRotation(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.eventSourceCaddyfile(t, "max_age 300ms\n retry 20ms"))
	page := openBrowser(t)
	page.open(site.url(wires[0], "/"))
	page.await("log.length > 0")
	published := 0
	await(t, func() bool {
		for range 10 {
			site.publish(t, "news", "", strconv.Itoa(published))
			published++
		}
		return evaluate[int](page, `log.filter(({ type }) => type === "hub:open").length`) >= 6
	}, func() string { return "the browser did not reconnect five times" })
	page.await(fmt.Sprintf(`log.some(({ type, data }) => type === "onmessage" && data === "%d")`, published-1))

	next, opens := 0, 0
	for _, f := range page.log() {
		switch f.Type {
		case "onmessage":
			if f.Data != strconv.Itoa(next) {
				t.Fatalf("event %s arrived where %d was next: %+v", f.Data, next, f)
			}
			next++
		case "hub:open":
			want := "complete"
			if opens == 0 {
				want = "fresh"
			}
			if !strings.Contains(f.Data, `"resume":"`+want+`"`) {
				t.Errorf("open %d: %s, want resume %s", opens, f.Data, want)
			}
			opens++
		case "hub:close":
			if f.Data != `{"reason":"expired"}` {
				t.Errorf("hub:close %s, want the reason expired", f.Data)
			}
		case "error":
			if f.ReadyState != 0 {
				t.Errorf("the browser gave up: readyState %d", f.ReadyState)
			}
		}
	}
	t.Logf("%d events over %d connections", next, opens)
}

// TestBrowserBusy holds the promise that a browser which was turned away comes
// back, in 5 to 15 seconds, when there may be room.
func TestBrowserBusy(t *testing.T) {
	site := newHubSite(t)
	site.load(t, site.eventSourceCaddyfile(t, "limits {\n connections 1\n }"))
	holder, _ := openRaw(t, wires[0].client(t), site.url(wires[0], newsEvents), nil)
	page := openBrowser(t)
	page.open(site.url(wires[0], "/"))
	page.await("log.length >= 2")
	turnedAway := time.Now()
	if got := page.log(); got[0].Type != "hub:close" || got[0].Data != `{"reason":"busy"}` || got[1].Type != "error" || got[1].ReadyState != 0 {
		t.Errorf("the page was fired %+v, want hub:close with reason busy, and an error that it recovers from", got)
	}
	holder.close()
	page.await(`log.some(({ type }) => type === "hub:open")`)
	if after := time.Since(turnedAway); after < 4500*time.Millisecond || after > 17*time.Second {
		t.Errorf("the browser came back after %s, want 5 to 15 s", after)
	}
	id := site.publish(t, "news", "", "there is room")
	page.await(`log.some(({ type }) => type === "onmessage")`)
	if got := page.log(); got[len(got)-1] != (fired{Type: "onmessage", Data: "there is room", LastEventID: id}) {
		t.Errorf("the page was fired %+v at last, want the event %s", got[len(got)-1], id)
	}
}
