package caddymodule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// An llmSite is examples/llm-stream on other ports, with a backend that writes
// fast and browsers that come back fast. Browsers reach Caddy by way of the
// front, and the backend by way of the back.
type llmSite struct {
	t         *testing.T
	caddyfile string
	site      string // host and port
	admin     string // host and port
	front     *front
	back      *back
	process   *caddytest.Process
}

// newLLMSite runs the example with its record in a file, or in memory if there
// is none.
func newLLMSite(t *testing.T, file string) *llmSite {
	t.Helper()
	text, err := os.ReadFile("../examples/llm-stream/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	backend := fmt.Sprintf("localhost:%d", caddytest.FreePort(t))
	s := &llmSite{
		t:         t,
		caddyfile: string(text),
		site:      fmt.Sprintf("localhost:%d", caddytest.FreePort(t)),
		admin:     fmt.Sprintf("127.0.0.1:%d", caddytest.FreePort(t)),
	}
	s.replace("localhost:8080", s.site)
	s.replace("localhost:3000", backend)
	s.replace("channel answer-{query.answer}", "channel answer-{query.answer}\n\t\tretry 100ms")
	if file != "" {
		s.replace("# sse {\n\t#\tbroker bolt sse.db\n\t# }", "sse {\n\t\tbroker bolt "+file+"\n\t}")
	}
	t.Setenv("CADDY_ADMIN", s.admin)
	s.front = newFront(t, s.site)
	s.back = newBack(t, s.admin)
	s.run()
	start(t, caddytest.Build(t, "./examples/llm-stream/backend"), "-listen", backend, "-hub", s.back.URL+"/sse/", "-pace", "2ms")
	await(t, func() bool {
		resp, err := http.Post(s.front.URL+"/ask", "application/x-www-form-urlencoded", nil)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusBadRequest // there was no question
	}, func() string { return "the backend does not answer" })
	return s
}

// replace changes the Caddyfile in one place.
func (s *llmSite) replace(old, by string) {
	s.t.Helper()
	if strings.Count(s.caddyfile, old) != 1 {
		s.t.Fatalf("the example's Caddyfile has no %q, which this test needs", old)
	}
	s.caddyfile = strings.Replace(s.caddyfile, old, by, 1)
}

func (s *llmSite) run() {
	s.t.Helper()
	s.process = caddytest.Run(s.t, s.caddyfile)
	s.process.WaitServing(s.t, "http://"+s.admin+"/sse/health")
	s.process.WaitServing(s.t, "http://"+s.site)
}

// in is the site for a subtest.
func (s *llmSite) in(t *testing.T) *llmSite {
	copied := *s
	copied.t = t
	return &copied
}

// A written answer is what the hub keeps of it.
type written struct {
	question, text string
	words          int
	done           string // the number of words, if it is complete
	ended          bool
}

// written returns what was published. An answer that was published twice would
// show in the number of words.
func (s *llmSite) written(id string) (w written) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.admin+"/sse/channels/answer-"+id+"?limit=1000", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true // a reload closes idle connections
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var reply struct {
		Ended bool
		Kept  []struct{ Event, Data string }
	}
	if resp.StatusCode == http.StatusNotFound {
		return w
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s (error: %v)", resp.Status, err)
	}
	w.ended = reply.Ended
	for _, e := range reply.Kept {
		switch e.Event {
		case "question":
			w.question = e.Data
		case "done":
			w.done = e.Data
		default:
			w.text += e.Data
			w.words++
		}
	}
	return w
}

// awaitWritten waits until that many words were published.
func (s *llmSite) awaitWritten(id string, words int) {
	s.t.Helper()
	await(s.t, func() bool { return s.written(id).words >= words },
		func() string { return fmt.Sprintf("published: %+v, want %d words", s.written(id), words) })
}

// ask asks in the page and returns the answer's id.
func (s *llmSite) ask(page *browser, question string) string {
	s.t.Helper()
	before := evaluate[string](page, "location.hash")
	evaluate[bool](page, fmt.Sprintf(`document.querySelector("#question").value = %q;
		document.querySelector("#ask button").click(); true`, question))
	page.await(fmt.Sprintf("location.hash.length > 1 && location.hash !== %q", before))
	return evaluate[string](page, "location.hash.slice(1)")
}

func (b *browser) awaitWords(n int) {
	b.t.Helper()
	b.await(fmt.Sprintf(`document.querySelectorAll("#text span").length >= %d`, n))
}

func (b *browser) awaitState(state string) {
	b.t.Helper()
	b.await(fmt.Sprintf(`document.querySelector("#answer").dataset.state === %q`, state))
}

func (b *browser) reload() {
	b.t.Helper()
	if _, err := do(b, chromedp.Reload()); err != nil {
		b.t.Fatal(err)
	}
}

// watchSources collects what the page opens from now on until it is loaded
// again.
func (b *browser) watchSources() {
	b.t.Helper()
	evaluate[bool](b, `window.sources = [];
		window.EventSource = class extends EventSource {
			constructor(url) {
				super(url);
				sources.push(this);
				this.addEventListener("done", () => { this.done = true; });
			}
		};
		true`)
}

// tab opens another tab in the same browser.
func (b *browser) tab() *browser {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	if _, err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil {
		b.t.Fatal(err)
	}
	return &browser{b.t, ctx}
}

// setOffline takes the page's network away, or gives it back.
func (b *browser) setOffline(offline bool) {
	b.t.Helper()
	_, err := do(b, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
			MatchedNetworkConditions: []*network.Conditions{{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}},
		})
		return err
	}))
	if err != nil {
		b.t.Fatal(err)
	}
}

// expectComplete waits until the page says that the answer is complete, and
// checks that it shows each word once.
func (s *llmSite) expectComplete(page *browser, id string) written {
	s.t.Helper()
	page.awaitState("complete")
	w := s.written(id)
	if !w.ended || w.done != fmt.Sprint(w.words) || !strings.HasSuffix(w.text, "Voilà!") {
		s.t.Errorf("published: %+v", w)
	}
	s.expectShown(page, w)
	return w
}

// expectShown checks that the page shows just what was published.
func (s *llmSite) expectShown(page *browser, w written) {
	s.t.Helper()
	if got := page.text("#text"); got != w.text {
		s.t.Errorf("the page shows\n%q\nwant\n%q", got, w.text)
	}
	if got := page.text("#asked"); got != w.question {
		s.t.Errorf("the page shows the question %q, want %q", got, w.question)
	}
	if got := page.text("#note"); got != "" {
		s.t.Errorf("the page has the note %q", got)
	}
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}
