package caddymodule_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// The words of these questions become words of the answers.
const llmQuestion = "Ça va? 100 % & <b>日本語</b> 𝄞 \\n + a=b; c"

// TestLLMStream holds what examples/llm-stream promises: an answer arrives word
// by word and each word once, whatever becomes of the page, the network and the
// requests that publish it, and then the stream stops.
func TestLLMStream(t *testing.T) {
	site, page := newLLMSite(t, ""), openBrowser(t)
	page.open(site.front.URL)
	for _, tc := range []struct {
		name string
		run  func(*llmSite, *browser)
	}{
		{"words come", llmWords},
		{"the page is reloaded", llmReload},
		{"connections are cut", llmCut},
		{"the end is missed", llmMissedEnd},
		{"the network is away", llmOffline},
		{"two tabs", llmTabs},
		{"publishing fails", llmFaults},
		{"Caddy reloads", llmCaddyReload},
		{"it is stopped", llmStop},
		{"a page that does not close", llmUnclosed},
		{"what a client may read", llmCapability},
		{"the beginning is gone", llmExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.run(site.in(t), &browser{t, page.ctx})
		})
	}
}

// Words are on the page before the next is written, and when all are there, the
// page closes its stream.
func llmWords(site *llmSite, page *browser) {
	page.watchSources()
	site.back.hold(1)
	id := site.ask(page, llmQuestion)
	page.awaitText("#asked", llmQuestion)
	for n := 1; n <= 3; n++ {
		site.back.pass(1)
		page.awaitWords(n)
	}
	page.awaitText("#text", "You asked: “Ça ")
	page.awaitState("writing")
	site.back.release()
	w := site.expectComplete(page, id)
	if !evaluate[bool](page, `sources.length === 1 && sources[0].readyState === EventSource.CLOSED`) {
		site.t.Error("the page did not close its stream")
	}
	if w.question != llmQuestion || !strings.Contains(w.text, llmQuestion+"”\n\n") || w.words < 60 {
		site.t.Errorf("published: %+v", w)
	}
	site.expectStreams(id, 1)
}

// A reloaded page begins at the first word and goes on, as often as that, also
// when the answer is complete.
func llmReload(site *llmSite, page *browser) {
	site.back.hold(20)
	id := site.ask(page, llmQuestion)
	page.awaitWords(19)
	page.reload()
	page.awaitWords(19)
	site.expectShown(page, site.written(id))
	site.back.pass(10)
	page.awaitWords(29)
	page.reload()
	site.back.release()
	site.expectComplete(page, id)
	page.reload()
	site.expectComplete(page, id)
	site.expectStreams(id, 4)
}

// A stream may break at any byte.
func llmCut(site *llmSite, page *browser) {
	seed := rand.Uint64()
	site.t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	site.front.cut(func() int { return random.IntN(900) })
	site.back.hold(200)
	id := site.ask(page, llmQuestion)
	site.expectComplete(page, id)
	site.front.cut(nil)
	requests := site.front.streams(id)
	if len(requests) < 3 {
		site.t.Errorf("only %d connections, want some to be cut", len(requests))
	}
	site.t.Logf("%d connections", len(requests))
	for i, r := range requests[1:] {
		if requests[i].lastEventID != "" && r.lastEventID == "" {
			site.t.Errorf("connection %d began anew", i+1)
		}
	}
}

// A page that misses hub:end alone is answered 204. It still tells a complete
// answer from a stopped one.
func llmMissedEnd(site *llmSite, page *browser) {
	page.watchSources()
	site.back.hold(200)
	cut := site.front.cutOnce("event: hub:end")
	id := site.ask(page, llmQuestion)
	page.await("sources.at(-1).done")
	cut()
	site.expectComplete(page, id)
	if requests := site.expectStreams(id, 2); requests[1].status != 204 {
		site.t.Errorf("the second request was %+v", requests[1])
	}

	site.back.hold(20)
	cut = site.front.cutOnce("event: hub:end")
	id = site.ask(page, llmQuestion)
	page.awaitWords(19)
	evaluate[bool](page, `document.querySelector("#stop").click(); true`)
	cut()
	page.awaitState("stopped")
	site.expectShown(page, site.written(id))
	if requests := site.expectStreams(id, 3); requests[1].status != 204 || requests[2].lastEventID != "" {
		site.t.Errorf("the requests were %+v, want the page to begin anew after the second", requests)
	}
}

// What is written while the network is away follows when it is back.
func llmOffline(site *llmSite, page *browser) {
	site.back.hold(20)
	id := site.ask(page, llmQuestion)
	page.awaitWords(19)
	page.setOffline(true)
	defer page.setOffline(false)
	site.front.CloseClientConnections() // which Chromium leaves alone
	page.awaitState("reconnecting")
	site.back.pass(40)
	site.awaitWritten(id, 59)
	if n := evaluate[int](page, `document.querySelectorAll("#text span").length`); n != 19 {
		site.t.Errorf("the page got %d words without a network", n)
	}
	page.setOffline(false)
	page.awaitWords(59)
	site.expectShown(page, site.written(id))
	site.back.release()
	site.expectComplete(page, id)
}

// Two tabs show the same, whenever they were opened.
func llmTabs(site *llmSite, page *browser) {
	site.back.hold(30)
	id := site.ask(page, llmQuestion)
	page.awaitWords(29)
	second := page.tab()
	second.open(site.front.URL + "/#" + id)
	second.awaitWords(29)
	site.back.release()
	site.expectComplete(page, id)
	site.expectComplete(second, id)
	site.expectStreams(id, 2)
}

// A publish that fails is repeated, and the word is there once, whether the hub
// had it before or not.
func llmFaults(site *llmSite, page *browser) {
	site.back.fail(unharmed, refused, unharmed, unheard, unharmed, unheard, unheard, lost, refused, unharmed, lost)
	site.back.hold(200)
	before := site.back.count()
	id := site.ask(page, llmQuestion)
	w := site.expectComplete(page, id)
	if attempts := site.back.count() - before; attempts != w.words+2+7 {
		site.t.Errorf("%d words were published by %d attempts, want one for each, the question, the end and 7 faults", w.words, attempts)
	}
}

// A reload of Caddy goes unnoticed.
func llmCaddyReload(site *llmSite, page *browser) {
	site.back.hold(20)
	id := site.ask(page, llmQuestion)
	page.awaitWords(19)
	reloadProcess(site.t, site.admin, site.caddyfile)
	site.back.release()
	site.expectComplete(page, id)
	site.expectStreams(id, 1)
}

// The Stop button ends the channel. A page that is loaded later says so too.
func llmStop(site *llmSite, page *browser) {
	site.back.hold(20)
	id := site.ask(page, llmQuestion)
	page.awaitWords(19)
	evaluate[bool](page, `document.querySelector("#stop").click(); true`)
	page.awaitState("stopped")
	w := site.written(id)
	if !w.ended || w.done != "" || w.words != 19 {
		site.t.Errorf("published: %+v", w)
	}
	site.expectShown(page, w)
	page.reload()
	page.awaitState("stopped")
	site.expectShown(page, w)
	site.expectStreams(id, 2)
	if problem := page.text("#problem"); problem != "" {
		site.t.Errorf("the page tells of a problem: %s", problem)
	}
}

// An EventSource that nobody closes is answered 204 when it comes back after the
// end, and stops.
func llmUnclosed(site *llmSite, page *browser) {
	site.back.hold(20)
	id := site.ask(page, llmQuestion)
	page.awaitWords(19)
	evaluate[bool](page, fmt.Sprintf(`window.log = [];
		window.unclosed = new EventSource("/events?since=earliest&answer=%s");
		for (const name of ["message", "hub:end", "hub:close", "error"]) {
			unclosed.addEventListener(name, ({ type, data, lastEventId }) =>
				log.push({ type, data, lastEventId, readyState: unclosed.readyState }));
		}
		true`, id))
	site.back.release()
	w := site.expectComplete(page, id)
	page.await("unclosed.readyState === EventSource.CLOSED")

	// One stream of the page and two of the other, the last without an answer.
	got := page.log()
	words := ""
	for len(got) > 0 && got[0].Type == "message" {
		words += got[0].Data
		got = got[1:]
	}
	if words != w.text {
		site.t.Errorf("it got %q", words)
	}
	for i, want := range []fired{
		{Type: "hub:end", Data: `{"channel":"answer-` + id + `"}`},
		{Type: "hub:close", Data: `{"reason":"ended"}`},
		{Type: "error", ReadyState: 0}, // it comes back
		{Type: "error", ReadyState: 2}, // it gives up
	} {
		if i >= len(got) || got[i].Type != want.Type || got[i].Data != want.Data || want.Type == "error" && got[i].ReadyState != want.ReadyState {
			site.t.Fatalf("after the words it was fired %+v, want %+v", got, want)
		}
	}
	requests := site.expectStreams(id, 3)
	if last := requests[2]; last.status != 204 || last.lastEventID == "" {
		site.t.Errorf("the last request was %+v", last)
	}
}

// A client can read the answers whose ids it knows, and no others.
func llmCapability(site *llmSite, _ *browser) {
	client := wires[0].client(site.t)
	for _, query := range []string{"channel=answer-*", "answer=*", "answer=A&channel=*", "", "answer=A&channel=answer-B"} {
		resp, err := client.Get(site.front.URL + "/events?since=earliest&" + query)
		if err != nil {
			site.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 && resp.StatusCode != 403 {
			site.t.Errorf("%q: %s", query, resp.Status)
		}
	}
}

// The page says what the hub does not keep any more.
func llmExpired(site *llmSite, page *browser) {
	site.back.hold(200)
	id := site.ask(page, llmQuestion)
	w := site.expectComplete(page, id)

	whole := site.caddyfile
	site.caddyfile = strings.Replace(whole, "\tlog {", "\tsse {\n\t\thistory 20 1h\n\t}\n\tlog {", 1)
	reloadProcess(site.t, site.admin, site.caddyfile)
	page.reload()
	page.awaitState("complete")
	rest, marked := strings.CutPrefix(page.text("#text"), "[…] ")
	if !marked || !strings.HasSuffix(w.text, rest) || len(strings.Fields(rest)) != 19 {
		site.t.Errorf("the page shows %q", page.text("#text"))
	}
	if note := page.text("#note"); !strings.Contains(note, "missing") {
		site.t.Errorf("the page has the note %q", note)
	}

	site.caddyfile = strings.Replace(whole, "\tlog {", "\tsse {\n\t\thistory 20 1ms\n\t}\n\tlog {", 1)
	reloadProcess(site.t, site.admin, site.caddyfile)
	await(site.t, func() bool { return site.written(id).done == "" }, func() string { return "the answer is still kept" })
	page.reload()
	page.awaitState("gone")
	requests := site.front.streams(id)
	if last := requests[len(requests)-1]; last.status != 204 {
		site.t.Errorf("the last request was %+v, want it to be answered 204", last)
	}
}

// TestLLMStreamRestart holds what the example says of a memory broker: when
// Caddy is killed, the backend goes on when there is another, and the page
// comes back by itself and shows where words are missing.
func TestLLMStreamRestart(t *testing.T) {
	site, page := newLLMSite(t, ""), openBrowser(t)
	page.open(site.front.URL)
	site.back.hold(200)
	whole := site.expectComplete(page, site.ask(page, llmQuestion)).text

	id := site.askAndRestart(page)
	page.awaitState("writing")
	before := page.text("#text")
	site.back.release()
	page.awaitState("complete")
	after, marked := strings.CutPrefix(page.text("#text"), before)
	before, alsoMarked := strings.CutSuffix(before, "[…] ")
	if !marked || !alsoMarked || !strings.HasPrefix(whole, before) || !strings.HasSuffix(whole, after) || len(before)+len(after) > len(whole) {
		t.Errorf("the page shows %q", page.text("#text"))
	}
	if w := site.written(id); !w.ended || !strings.HasSuffix(whole, w.text) || w.question != "" {
		t.Errorf("published: %+v", w)
	}
}

// TestLLMStreamDurable holds what it says of a bolt broker: nothing is missing
// then.
func TestLLMStreamDurable(t *testing.T) {
	site, page := newLLMSite(t, t.TempDir()+"/sse.db"), openBrowser(t)
	page.open(site.front.URL)
	id := site.askAndRestart(page)
	site.back.release()
	site.expectComplete(page, id)
	page.reload()
	site.expectComplete(page, id)
}

// askAndRestart kills Caddy amid an answer and starts it again.
func (s *llmSite) askAndRestart(page *browser) (id string) {
	s.t.Helper()
	s.back.hold(20)
	id = s.ask(page, llmQuestion)
	page.awaitWords(19)
	if err := s.process.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	page.awaitState("reconnecting")
	attempts := s.back.count()
	s.back.pass(1)
	await(s.t, func() bool { return s.back.count() > attempts }, func() string { return "the backend gave up" })
	s.run()
	return id
}

// expectStreams checks how many requests there were for an answer's stream.
func (s *llmSite) expectStreams(id string, want int) []streamRequest {
	s.t.Helper()
	got := s.front.streams(id)
	if len(got) != want {
		s.t.Fatalf("the answer was requested %d times, want %d: %+v", len(got), want, got)
	}
	return got
}
