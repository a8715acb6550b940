package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Texts that end a field, a header or a block for one reader or another.
var injections = []struct {
	name, text string
	// breaks is whether it holds what no field of one line may: CR, LF or NUL.
	breaks bool
}{
	{"CR", "a\rdata: injected", true},
	{"LF", "a\ndata: injected", true},
	{"CRLF", "a\r\ndata: injected\r\n\r\n", true},
	{"LF LF", "a\n\nevent: hub:close\ndata: {}\n\n", true},
	{"NUL", "a\x00b", true},
	{"header", "a\r\nInjected: 1\r\n\r\nHTTP/1.1 200 OK", true},
	{"line separator", "a\u2028data: injected", false},
	{"paragraph separator", "a\u2029data: injected", false},
	{"next line", "a\u0085data: injected", false},
	{"vertical tab", "a\vdata: injected", false},
	{"form feed", "a\fdata: injected", false},
	{"byte order mark", "\ufeffa", false},
	{"colon", ": a", false},
	{"space", " a ", false},
	{"escape", "a\x1b[2J", false},
	{"quotes", `a"b\r\n\u000a</script><!--`, false},
	{"field", "data: x", false},
}

// A wholeStream is one that is read to its end, as bytes.
type wholeStream struct {
	l    *lab
	resp *http.Response
}

func (l *lab) openWhole(pathAndQuery string) wholeStream {
	l.t.Helper()
	resp, err := l.client.Do(l.request("GET", l.site+pathAndQuery, nil))
	if err != nil {
		l.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		l.t.Fatalf("%s: %d", pathAndQuery, resp.StatusCode)
	}
	return wholeStream{l, resp}
}

// end has the hub end the stream of a connection, and returns all that was in it. A
// kick does not wait for what is on its way, so something of its own goes before.
func (w wholeStream) end(connection string) (events []parsed, retries []string) {
	w.l.t.Helper()
	const last = "nothing-comes-behind-this"
	if got := w.l.do("POST", w.l.admin+"/sse/connections/"+connection+"/channels", `{"subscribe":["`+last+`"]}`, jsonType); got.StatusCode != 200 {
		w.l.t.Fatalf("give the stream a channel: %d %s", got.StatusCode, got.body)
	}
	w.l.publish(last, last)
	var before []byte
	for one := make([]byte, 1); !bytes.HasSuffix(before, []byte("data: "+last+"\n\n")); {
		if _, err := io.ReadFull(w.resp.Body, one); err != nil {
			w.l.t.Fatalf("%s after %q", err, before)
		}
		before = append(before, one...)
	}
	if got := w.l.do("DELETE", w.l.admin+"/sse/connections/"+connection, ""); got.StatusCode != 200 {
		w.l.t.Fatalf("end the stream: %d %s", got.StatusCode, got.body)
	}
	defer w.resp.Body.Close()
	all, err := io.ReadAll(w.resp.Body)
	if err != nil {
		w.l.t.Fatal(err)
	}
	events, retries = parseStream(append(before, all...))
	return slices.DeleteFunc(events, func(e parsed) bool { return strings.Contains(e.data, last) }), retries
}

// lines is how a text arrives: with LF for each of its line ends.
func lines(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

// TestAttackPublishedFields promises that whatever way a publisher takes, and
// whatever it writes into an event's name, id, retry and data, the stream holds
// exactly that event to a reader who goes by the standard, or the event is
// refused and the stream holds nothing of it.
func TestAttackPublishedFields(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	w := l.openWhole("/events?channel=a&connection=" + aliceID)
	var want []parsed
	// published notes what is to arrive, or checks that it was refused.
	published := func(t *testing.T, got reply, event, data string, refuse bool) {
		t.Helper()
		got.clean(t)
		if refuse {
			got.refused(t, 400)
			return
		}
		var r receipt
		body := strings.TrimSpace(got.body)
		if got.StatusCode != 200 || json.Unmarshal([]byte(strings.Trim(body, "[]")), &r) != nil || r.ID.IsZero() {
			t.Errorf("got %d %s, want it published", got.StatusCode, got.body)
			return
		}
		if event == "" {
			event = "message"
		}
		want = append(want, parsed{event, lines(data), r.ID.String()})
	}
	for _, x := range injections {
		for _, field := range []string{"event", "id", "retry", "data"} {
			fields := map[string]string{"channel": "a", "data": "innocent"}
			fields[field] = x.text
			refuse := field == "retry" || (field != "data" && x.breaks)
			event := fields["event"]
			t.Run(x.name+" as "+field, func(t *testing.T) {
				l := l.in(t)
				unique := func(way string) map[string]string {
					own := map[string]string{}
					for name, value := range fields {
						if name == "id" { // or it would be a repetition
							value = way + value
						}
						own[name] = value
					}
					return own
				}
				form := func(fields map[string]string) string {
					values := url.Values{}
					for name, value := range fields {
						values.Set(name, value)
					}
					return values.Encode()
				}
				raw := unique("raw ")
				query := ""
				if field != "data" {
					query = "?" + field + "=" + escape(raw[field])
				}
				published(t, l.do("POST", l.admin+"/sse/publish/a"+query, raw["data"]), event, raw["data"], refuse)

				own := unique("form ")
				published(t, l.do("POST", l.admin+"/sse/publish", form(own), "Content-Type: application/x-www-form-urlencoded"), event, own["data"], refuse)

				own = unique("envelope ")
				envelope, err := json.Marshal(own)
				if err != nil {
					t.Fatal(err)
				}
				published(t, l.do("POST", l.admin+"/sse/publish", string(envelope), jsonType), event, own["data"], refuse)
				own = unique("array ")
				envelope, _ = json.Marshal([]any{own})
				published(t, l.do("POST", l.admin+"/sse/publish", string(envelope), jsonType), event, own["data"], refuse)

				own = unique("line ")
				envelope, _ = json.Marshal(own)
				got := l.do("POST", l.admin+"/sse/publish", string(envelope)+"\n", "Content-Type: application/x-ndjson")
				if refuse {
					if got.StatusCode != 200 || !strings.Contains(got.body, `"status":400`) || strings.Count(got.body, "\n") != 1 {
						t.Errorf("the line was answered %d %q", got.StatusCode, got.body)
					}
				} else {
					published(t, got, event, own["data"], false)
				}
				if field == "data" || strings.Contains(lines(x.text), "\n\n") {
					return // the latter ends the header, and is another request
				}
				// A header as its bytes are sent. Where it is cut, it is another
				// header, and what the attacker wants: it must then do nothing.
				own = unique("header " + x.name + " ")
				name := map[string]string{"event": "Sse-Event", "id": "Sse-Id", "retry": "Sse-Retry"}[field]
				got = l.rawRequest(l.adminPort, "POST", "/sse/publish/a", "innocent", name+": "+own[field])
				got.clean(t)
				if got.StatusCode == 200 {
					value, _, _ := strings.Cut(own[field], "\n")
					value = strings.Trim(value, " \t\r")
					if field != "event" {
						value = ""
					}
					published(t, got, value, "innocent", strings.ContainsAny(value, "\r\n\x00"))
				} else if got.StatusCode != 400 {
					t.Errorf("the header was answered %d %q", got.StatusCode, got.body)
				}
			})
		}
	}
	events, retries := w.end(aliceID)
	if len(events) < 2 || events[0].event != "hub:open" || events[len(events)-1].event != "hub:close" {
		t.Fatalf("the stream has %d events", len(events))
	}
	got := events[1 : len(events)-1]
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("event %d of %d is %q, want %q of %d", i, len(got), got[min(i, len(got)-1)], want[min(i, len(want)-1)], len(want))
		}
	}
	for _, retry := range retries[:len(retries)-1] {
		if len(retry) != 4 {
			t.Errorf("somebody set the retry to %s", retry)
		}
	}
	// The control API shows them as they are, in JSON.
	var page struct {
		Kept []struct{ Event, Data string }
	}
	kept := l.do("GET", l.admin+"/sse/channels/a?limit=1000", "")
	if decodeLoosely(t, kept.body, &page); len(page.Kept) != len(want) || strings.Count(kept.body, "\n") != 1 {
		t.Errorf("%d events are kept, want %d", len(page.Kept), len(want))
	}
}

// TestAttackReservedNames promises that no publisher can say what only the hub
// says, in any spelling that a browser would take for it.
func TestAttackReservedNames(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	w := l.openWhole("/events?channel=a&connection=" + aliceID)
	for _, name := range []string{"hub:open", "hub:close", "hub:reset", "hub:end", "hub:channels", "hub:", " hub:open", "hub:open ", "\thub:close", "\ufeffhub:close", "Hub:close", "hub :close"} {
		body, err := json.Marshal(map[string]string{"channel": "a", "event": name, "data": `{"reason":"kicked"}`})
		if err != nil {
			t.Fatal(err)
		}
		l.do("POST", l.admin+"/sse/publish", string(body), jsonType)
		l.do("POST", l.admin+"/sse/publish/a?event="+escape(name), "x")
		l.rawRequest(l.adminPort, "POST", "/sse/publish/a", "x", "Sse-Event:"+name)
	}
	events, _ := w.end(aliceID)
	for i, e := range events {
		if strings.HasPrefix(e.event, "hub:") && i != 0 && i != len(events)-1 {
			t.Errorf("the stream has %q", e)
		}
	}
}

// TestAttackSubscriberInputs promises that nothing which a client sends is written
// into a header, a stream or a problem so that it could be taken for more than
// text: neither its channels, nor its position, connection, origin, nor name.
func TestAttackSubscriberInputs(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\tsse /named* {\n\t\tallow *\n\t\tuser {http.request.header.X-User}\n\t\torigins *\n\t}")
	for _, x := range injections {
		t.Run(x.name, func(t *testing.T) {
			l := l.in(t)
			text := escape(x.text)
			for _, query := range []string{
				"channel=" + text, "channel=a&since=" + text, "channel=a&last_event_id=" + text, "channel=a&connection=" + text,
				"channel=a&since=1&last_event_id=" + text, text + "=1", "channel=a&" + text, "channel=a&connection=" + aliceID + text,
			} {
				got := l.rawRequest(l.sitePort, "GET", "/events?"+query, "")
				checkAnswer(t, got, query)
			}
			for _, query := range []string{"connection=" + text, "since=" + text + "&connection=" + aliceID} {
				checkAnswer(t, l.rawRequest(l.sitePort, "POST", "/events/subscribe/"+url.PathEscape(x.text)+"?"+query, ""), query)
				checkAnswer(t, l.rawRequest(l.sitePort, "POST", "/events?"+query, `{"subscribe":[`+jsonBytes(x.text)+`]}`, jsonType), query)
			}
			for _, header := range []string{"Last-Event-ID", "Origin", "X-User", "Authorization", "Content-Type", "Content-Encoding", "Access-Control-Request-Headers", "Sec-Fetch-Site"} {
				for _, method := range []string{"GET", "POST", "OPTIONS"} {
					for _, path := range []string{"/events?channel=a", "/named?channel=a&connection=" + bobID} {
						checkAnswer(t, l.rawRequest(l.sitePort, method, path, "", header+": "+x.text), method+" "+path+" "+header)
					}
				}
			}
			for _, path := range []string{"/sse/channels/", "/sse/publish/", "/sse/connections/", "/sse/", "/sse/channels?after=", "/sse/channels?limit=", "/sse/connections?user=", "/sse?hub=", "/sse/health?"} {
				checkAnswer(t, l.rawRequest(l.adminPort, "GET", path+text, ""), path)
				checkAnswer(t, l.rawRequest(l.adminPort, "DELETE", path+url.PathEscape(x.text)+"x", ""), path)
			}
		})
	}
	eventually(t, "the streams have ended", func() bool { return l.numbers("").Streams == 0 })
}

// checkAnswer checks an answer to one who injects: it is no error of the server,
// has no header of his, and a stream begins with the hub's own frame and nothing
// else.
func checkAnswer(t *testing.T, got reply, what string) {
	t.Helper()
	got.clean(t)
	if got.StatusCode >= 500 {
		t.Errorf("%s: got %d: %s", what, got.StatusCode, got.body)
	}
	for _, name := range []string{"Set-Cookie", "Location", "Content-Location", "Refresh"} {
		if got.Header.Get(name) != "" {
			t.Errorf("%s: got the header %s: %s", what, name, got.Header.Get(name))
		}
	}
	if origin := got.Header.Get("Access-Control-Allow-Origin"); strings.ContainsAny(origin, "\r\n\x00") {
		t.Errorf("%s: the allowed origin is %q", what, origin)
	}
	switch got.Header.Get("Content-Type") {
	case "text/event-stream":
		events, retries := parseStream([]byte(got.body))
		var open openData
		if len(events) != 1 || events[0].event != "hub:open" || len(retries) != 1 || json.Unmarshal([]byte(events[0].data), &open) != nil {
			t.Errorf("%s: the stream begins with %q", what, got.body)
		}
	case "application/problem+json", "application/json":
		if !json.Valid([]byte(got.body)) {
			t.Errorf("%s: no JSON: %q", what, got.body)
		}
	}
}

// TestAttackFirstFrame promises that what hub:open repeats of a request, and what
// hub:channels and hub:end repeat of names, is one line of JSON each.
func TestAttackFirstFrame(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	names := []string{`a"}`, `a\n`, `a\`, "a</script>", "a:b", "a=\u200b", "\ufeffa", "a\u202eb", "data:x", "a'b", "<!--", "a\U0001F600"}
	query := "/events?connection=" + aliceID
	for _, name := range names {
		query += "&channel=" + escape(name)
	}
	w := l.openWhole(query)
	for i, name := range names {
		l.do("POST", l.site+"/events?connection="+aliceID, `{"unsubscribe":[`+jsonBytes(name)+`]}`, jsonType)
		l.do("POST", l.site+"/events?connection="+aliceID, `{"subscribe":[`+jsonBytes(name)+`]}`, jsonType)
		if i%2 == 0 {
			l.do("DELETE", l.admin+"/sse/channels/"+url.PathEscape(name), "")
		}
	}
	events, _ := w.end(aliceID)
	counts := map[string]int{}
	for _, e := range events {
		counts[e.event]++
		var data struct {
			Channels []string
			Channel  string
		}
		decodeLoosely(t, e.data, &data)
		for _, name := range append(data.Channels, data.Channel) {
			if name != "" && !slices.Contains(names, name) {
				t.Errorf("%s names %q", e.event, name)
			}
		}
		if strings.Contains(e.data, "\n") {
			t.Errorf("%s has several lines: %q", e.event, e.data)
		}
	}
	if fmt.Sprint(counts["hub:open"], counts["hub:end"], counts["hub:close"]) != "1 6 1" || counts["hub:channels"] == 0 || counts["message"] != 0 {
		t.Errorf("the stream has %v", counts)
	}
}
