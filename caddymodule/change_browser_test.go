package caddymodule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// streamPage is a page whose function listen opens a stream, of which it logs
// what arrives.
const streamPage = `<!doctype html><title>stream</title><script>
	window.log = []
	function listen(url) {
		window.events = new EventSource(url)
		for (const name of ["hub:open", "hub:channels", "hub:close"]) events.addEventListener(name, e => log.push(name + e.data))
		events.onmessage = e => log.push(e.data)
	}
	async function ask(url, body) {
		const init = {method: "POST"}
		if (body) Object.assign(init, {body: JSON.stringify(body), headers: {"Content-Type": "application/json"}})
		try { return (await fetch(url, init)).status } catch (e) { return String(e) }
	}
</script>`

// pageSite is a site that serves the page.
func pageSite(address string) string {
	return fmt.Sprintf("http://%s {\n\theader Content-Type text/html\n\trespond / <<HTML\n%s\nHTML\n}\n", address, streamPage)
}

// TestBrowserChangesChannels promises that a page changes the channels of its
// EventSource, and that the browser's own reconnect gets the changed set back and
// misses nothing, though its URL still says what it was at first.
func TestBrowserChangesChannels(t *testing.T) {
	l := newLab(t)
	load := func(place string) {
		l.load("", fmt.Sprintf("@here not path %s\n\thandle @here {\n\t\tsse /events* {\n\t\t\tallow *\n\t\t\tretry 100ms\n\t\t}\n\t\theader / Content-Type text/html\n\t\trespond / <<HTML\n%s\nHTML\n\t}\n", place, streamPage))
	}
	load("/nowhere")
	l.publish("room", "said before")
	page := openBrowser(t)
	page.open(l.site + "/")
	evaluate[bool](page, fmt.Sprintf(`listen("/events?channel=lobby&connection=%s"), true`, aliceID))
	page.await(`log.length === 1`)
	evaluate[bool](page, fmt.Sprintf(`ask("/events?connection=%s", {subscribe: ["room"], unsubscribe: ["lobby"], since: "earliest"}).then(s => log.push("status " + s)), true`, aliceID))
	page.await(`log.includes("status 200") && log.includes('hub:channels{"channels":["room"]}') && log.includes("said before")`)
	l.publish("lobby", "not for us")
	l.publish("room", "live")
	page.await(`log.at(-1) === "live"`)

	load("/nowhere/else") // another route, so that the streams end
	page.await(`log.filter(line => line.startsWith("hub:open")).length === 2`)
	l.publish("lobby", "not for us")
	l.publish("room", "after the reconnect")
	page.await(`log.at(-1) === "after the reconnect"`)
	log := evaluate[string](page, `log.join("\n")`)
	if !strings.Contains(log, `"channels":["room"],"resume":"complete"`) || strings.Contains(log, "not for us") || strings.Count(log, "said before") != 1 {
		t.Errorf("the page saw:\n%s", log)
	}
}

// TestBrowserOfAnotherSite promises that a page of another site neither opens a
// stream nor changes one, not even by a request that a browser sends without
// asking first; and that it does both if its origin is named.
func TestBrowserOfAnotherSite(t *testing.T) {
	l := newLab(t)
	l.site = fmt.Sprintf("http://localhost:%d", l.sitePort) // the page is at 127.0.0.1, which is another site
	other := fmt.Sprintf("127.0.0.1:%d", caddytest.FreePort(t))
	load := func(option string) {
		config := l.caddyfile("", "sse /events* {\n\t\tallow *\n\t\tretry 100ms\n\t\t"+option+"\n\t}")
		caddytest.Load(t, strings.Replace(config, "http://127.0.0.1:", "http://localhost:", 1)+pageSite(other))
	}
	load("")
	page := openBrowser(t)
	page.open("http://" + other + "/")
	evaluate[bool](page, fmt.Sprintf(`listen("%s/events?channel=a"), true`, l.site))
	page.await(`events.readyState === EventSource.CLOSED`)
	s, _ := l.open("?channel=a&connection=" + aliceID)
	for _, attempt := range []string{
		`fetch("%s/events/subscribe/b?connection=%s", {method: "POST", mode: "no-cors"})`,
		`fetch("%s/events?connection=%s", {method: "POST", mode: "no-cors", body: JSON.stringify({subscribe: ["b"]})})`,
		`fetch("%s/events?connection=%s", {method: "POST", body: JSON.stringify({subscribe: ["b"]}), headers: {"Content-Type": "application/json"}})`,
	} {
		evaluate[bool](page, fmt.Sprintf(attempt+`.catch(() => 0).then(() => log.push("sent")), true`, l.site, aliceID))
	}
	page.await(`log.filter(line => line === "sent").length === 3`)
	if n := l.numbers("").Refused["origin"]; n != 4 {
		t.Errorf("%d requests of the page were refused, want 4", n)
	}
	if r := l.publish("b", "not subscribed"); r.Subscribers != 0 {
		t.Errorf("the page of another site changed a stream: %+v", r)
	}
	s.Close()

	load("origins http://" + other)
	page.open("http://" + other + "/")
	evaluate[bool](page, fmt.Sprintf(`listen("%s/events?channel=a&connection=%s"), true`, l.site, bobID))
	page.await(`log.length === 1`)
	evaluate[bool](page, fmt.Sprintf(`ask("%s/events?connection=%s", {subscribe: ["b"]}).then(s => log.push("status " + s)), true`, l.site, bobID))
	page.await(`log.includes("status 200") && log.includes('hub:channels{"channels":["a","b"]}')`)
	l.publish("b", "for a named origin")
	page.await(`log.at(-1) === "for a named origin"`)
}

// TestBrowserReloadStricter holds what TestReloadReconnect does with a real
// EventSource: after a reload that allows less it comes back by itself, and gets
// what it may still have.
func TestBrowserReloadStricter(t *testing.T) {
	l := newLab(t)
	load := func(allow string) {
		l.load("", fmt.Sprintf("sse /events* {\n\t\tallow %s\n\t\tretry 100ms\n\t}\n\theader / Content-Type text/html\n\trespond / <<HTML\n%s\nHTML\n", allow, streamPage))
	}
	load("news other")
	page := openBrowser(t)
	page.open(l.site + "/")
	evaluate[bool](page, `listen("/events?channel=news&channel=other"), true`)
	page.await(`log.length === 1`)
	load("news")
	page.await(`log.length === 3 && log[1].startsWith("hub:close") && log[2].includes('"channels":["news"],"resume":"complete"')`)
	l.publish("news", "after")
	page.await(`log.at(-1) === "after"`)
}
