package caddymodule_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	openAPI = "sse_api /sse* {\n\t\tunauthenticated\n\t}"
	form    = "Content-Type: application/x-www-form-urlencoded"
	jsonCT  = "Content-Type: application/json"

	ndjsonCT = "Content-Type: application/x-ndjson"
)

// doors are the two ways to the same requests. The query of the first goes
// along with every request.
func doors(l *lab) []struct{ name, base, query string } {
	return []struct{ name, base, query string }{
		{"sse_api", l.site + "/sse", ""},
		{"admin", l.admin + "/sse", ""},
		{"admin with hub", l.admin + "/sse", "hub=default"},
	}
}

// withQuery puts a query behind an address that may have one.
func withQuery(address, query string) string {
	switch {
	case query == "":
		return address
	case strings.Contains(address, "?"):
		return address + "&" + query
	}
	return address + "?" + query
}

// TestPublish promises what is delivered for what is published, through either
// door, and what the publisher is answered.
func TestPublish(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	const long = "data, 100 kB of it: "
	for _, tc := range []struct {
		name, path, body string
		header           []string
		event, data      string
		retry            time.Duration
	}{
		{"raw", "/publish/a", "hello", nil, "message", "hello", 0},
		{"raw form type", "/publish/a", "a=b&c=%20", []string{form}, "message", "a=b&c=%20", 0},
		{"raw JSON type", "/publish/a", ` {"data": 1} `, []string{jsonCT}, "message", ` {"data": 1} `, 0},
		{"raw malformed type", "/publish/a", "x", []string{"Content-Type: ;;"}, "message", "x", 0},
		{"raw identity", "/publish/a", "x", []string{"Content-Encoding: identity"}, "message", "x", 0},
		{"raw empty", "/publish/a", "", nil, "message", "", 0},
		{"raw one line feed", "/publish/a", "\n", nil, "message", "\n", 0},
		{"raw trailing line feed", "/publish/a", "x\n", nil, "message", "x\n", 0},
		{"raw leading line feed", "/publish/a", "\nx", nil, "message", "\nx", 0},
		{"raw lines", "/publish/a", "x\n\ny\n\n", nil, "message", "x\n\ny\n\n", 0},
		{"raw CRLF and CR", "/publish/a", "x\r\ny\rz\r", nil, "message", "x\ny\nz\n", 0},
		{"raw like fields", "/publish/a", "id: 1\nevent: x\n\ndata: y", nil, "message", "id: 1\nevent: x\n\ndata: y", 0},
		{"raw leading space", "/publish/a", " x", nil, "message", " x", 0},
		{"raw colon", "/publish/a", ":x", nil, "message", ":x", 0},
		{"raw byte order mark", "/publish/a", "\ufeffx", nil, "message", "\ufeffx", 0},
		{"raw NUL", "/publish/a", "x\x00y", nil, "message", "x\x00y", 0},
		{"raw long", "/publish/a", strings.Repeat(long, 5000), nil, "message", strings.Repeat(long, 5000), 0},
		{"raw query", "/publish/a?event=tick&retry=1500", "x", nil, "tick", "x", 1500 * time.Millisecond},
		{"raw header", "/publish/a", "x", []string{"Sse-Event: tick", "Sse-Retry: 1600"}, "tick", "x", 1600 * time.Millisecond},
		{"raw mixed", "/publish/a?event=tick", "x", []string{"Sse-Retry: 1700"}, "tick", "x", 1700 * time.Millisecond},
		{"raw event escaped", "/publish/a?event=a%20b%3A%C3%A9", "x", nil, "a b:é", "x", 0},
		{"raw event empty", "/publish/a?event=", "x", nil, "message", "x", 0},
		{"raw channel escaped", "/publish/%61", "x", nil, "message", "x", 0},

		{"envelope", "/publish", `{"channel":"a","data":"x"}`, []string{jsonCT}, "message", "x", 0},
		{"envelope with charset", "/publish", `{"channel":"a","data":"x"}`, []string{jsonCT + "; charset=utf-8"}, "message", "x", 0},
		{"envelope with all", "/publish", ` { "retry": 1800, "event" : "tick", "data":"x","channels":["b","a"] } ` + "\n", []string{jsonCT}, "tick", "x", 1800 * time.Millisecond},
		{"envelope string verbatim", "/publish", `{"channel":"a","data":"\u00e9\n\"\\ \ud83d\ude00\u2028\r\n."}`, []string{jsonCT}, "message", "é\n\"\\ 😀\u2028\n.", 0},
		{"envelope object compact", "/publish", "{\"channel\":\"a\",\"data\": {\"b\" : [1, 2.50,\n1e3],\"a\":\"<&>\" } }", []string{jsonCT}, "message", `{"b":[1,2.50,1e3],"a":"<&>"}`, 0},
		{"envelope array compact", "/publish", `{"channel":"a","data":[ 1 , 2 ]}`, []string{jsonCT}, "message", `[1,2]`, 0},
		{"envelope number", "/publish", `{"channel":"a","data":123456789012345678901234567890}`, []string{jsonCT}, "message", `123456789012345678901234567890`, 0},
		{"envelope false", "/publish", `{"channel":"a","data":false}`, []string{jsonCT}, "message", `false`, 0},
		{"envelope null", "/publish", `{"channel":"a","data":null}`, []string{jsonCT}, "message", `null`, 0},
		{"envelope empty string", "/publish", `{"channel":"a","data":""}`, []string{jsonCT}, "message", ``, 0},
		{"envelope escaped key", "/publish", `{"ch\u0061nnel":"a","data":"x"}`, []string{jsonCT}, "message", `x`, 0},

		{"form", "/publish", "channel=a&data=x%0Ay+z&event=tick&retry=1900", []string{form}, "tick", "x\ny z", 1900 * time.Millisecond},
		{"form with channels", "/publish", "channels=b&channels=a&data=x", []string{form}, "message", "x", 0},
		{"form with charset", "/publish", "channel=a&data=x", []string{form + "; charset=UTF-8"}, "message", "x", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, door := range doors(l) {
				s, _ := l.open("?channel=a")
				var r receipt
				l.do("POST", withQuery(door.base+tc.path, door.query), tc.body, tc.header...).into(t, &r)
				m := s.Next()
				if m.Event != tc.event || m.Data != tc.data {
					t.Errorf("%s: got %q %.200q, want %q %.200q", door.name, m.Event, m.Data, tc.event, tc.data)
				}
				if m.ID != r.ID.String() || r.Subscribers != 1 {
					t.Errorf("%s: got id %s, and the reply %+v", door.name, m.ID, r)
				}
				if retry, _ := s.Retry(); tc.retry != 0 && retry != tc.retry {
					t.Errorf("%s: got retry %v, want %v", door.name, retry, tc.retry)
				}
				s.Close()
				eventually(t, "the stream is gone", func() bool { return l.numbers("").Streams == 0 })
			}
		})
	}
}

// TestPublishArray promises that an array is ordered as given, as neighbours,
// with a receipt for each.
func TestPublishArray(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	s, _ := l.open("?channel=a&channel=b")
	var receipts []receipt
	l.do("POST", l.admin+"/sse/publish", `[
		{"channel":"a","data":"1"},
		{"channels":["a","b"],"data":"2"},
		{"channel":"c","data":"not for us"},
		{"channel":"b","data":"3","event":"named"}
	]`, jsonCT).into(t, &receipts)
	if len(receipts) != 4 {
		t.Fatalf("got %d receipts", len(receipts))
	}
	for i, want := range []int{1, 1, 0, 1} {
		if r := receipts[i]; r.Subscribers != want || r.ID.Seq != uint64(i+1) {
			t.Errorf("receipt %d: got %+v, want %d subscribers", i, r, want)
		}
	}
	expectData(t, s, "1", "2")
	if m := s.Expect("named"); m.Data != "3" || m.ID != receipts[3].ID.String() {
		t.Errorf("got %+v", m)
	}
	l.do("POST", l.admin+"/sse/publish", `[{"channel":"a","data":"one"}]`, jsonCT).into(t, &receipts)
	if len(receipts) != 1 {
		t.Errorf("an array of one is answered by %d receipts", len(receipts))
	}
}

// TestPublishSubscribers promises that a stream counts once for an event,
// however many of its names and patterns the event's channels match.
func TestPublishSubscribers(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	l.open("?channel=a-1")
	l.open("?channel=a-*")
	l.open("?channel=a-1&channel=a-*&channel=b")
	l.open("?channel=*")
	l.open("?channel=c")
	for _, tc := range []struct {
		channels string
		want     int
	}{
		{"a-1", 4},
		{"a-2", 3},
		{"a-", 3},
		{"a", 1},
		{"b", 2},
		{"c", 2},
		{"d", 1},
		{"a-1,b", 4},
		{"a-2,b", 3},
		{"b,c", 3},
		{"a-1,a-2,b,c", 5},
		{"d,e", 1},
	} {
		body, err := json.Marshal(map[string]any{"channels": strings.Split(tc.channels, ","), "data": "x"})
		if err != nil {
			t.Fatal(err)
		}
		var r receipt
		l.do("POST", l.admin+"/sse/publish", string(body), jsonCT).into(t, &r)
		if r.Subscribers != tc.want {
			t.Errorf("%s: got %d subscribers, want %d", tc.channels, r.Subscribers, tc.want)
		}
	}
}

// TestPublishOnce promises that a subscriber of two of an event's channels
// gets the event once.
func TestPublishOnce(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	s, _ := l.open("?channel=a&channel=b&channel=c*")
	l.do("POST", l.admin+"/sse/publish", `{"channels":["a","b","c1","c2"],"data":"once"}`, jsonCT)
	l.publish("a", "next")
	expectData(t, s, "once", "next")
	again, _ := l.open("?channel=a&channel=b&channel=c*&since=earliest")
	expectData(t, again, "once", "next")
}

// TestPublishRefusals promises that what is wrong is refused with a problem
// that names it, through either door, and that nothing of it is published.
func TestPublishRefusals(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	const at1 = `[{"channel":"a","data":"1"},`
	many := strings.Repeat(`"a",`, 100) + `"a"`
	for _, tc := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		field                    string
		index                    int // -1 for none
		detail                   string
	}{
		{"unknown path", "GET", "/nosuch", "", nil, 404, "", -1, "/nosuch"},
		{"unknown path, POST", "POST", "/publsh/a", "x", nil, 404, "", -1, "/publish"},
		{"unknown path below health", "GET", "/health/x", "", nil, 404, "", -1, "/health"},
		{"GET publish", "GET", "/publish/a", "", nil, 405, "", -1, "POST"},
		{"PUT publish", "PUT", "/publish/a", "x", nil, 405, "", -1, "POST"},
		{"GET publish of envelopes", "GET", "/publish", "", nil, 405, "", -1, "POST"},
		{"POST numbers", "POST", "", "x", nil, 405, "", -1, "GET"},
		{"POST channels", "POST", "/channels", "x", nil, 405, "", -1, "GET"},
		{"POST health", "POST", "/health", "", nil, 405, "", -1, "GET"},
		{"POST channel", "POST", "/channels/a", "x", nil, 405, "", -1, "GET, HEAD, DELETE"},
		{"DELETE channels", "DELETE", "/channels", "", nil, 405, "", -1, "GET, HEAD"},
		{"DELETE without channel", "DELETE", "/channels/", "", nil, 400, "channel", -1, "empty"},
		{"DELETE pattern", "DELETE", "/channels/a*", "", nil, 400, "channel", -1, "'*'"},
		{"DELETE with a parameter", "DELETE", "/channels/a?end=true", "", nil, 400, "end", -1, "parameter"},

		{"raw without channel", "POST", "/publish/", "x", nil, 400, "channel", -1, "empty"},
		{"raw pattern", "POST", "/publish/a*", "x", nil, 400, "channel", -1, "'*'"},
		{"raw channel with space", "POST", "/publish/a%20b", "x", nil, 400, "channel", -1, "' '"},
		{"raw channel with line feed", "POST", "/publish/a%0Ab", "x", nil, 400, "channel", -1, `\n`},
		{"raw channel with NUL", "POST", "/publish/a%00", "x", nil, 400, "channel", -1, `\x00`},
		{"raw channel not UTF-8", "POST", "/publish/a%ff", "x", nil, 400, "channel", -1, "UTF-8"},
		{"raw channel too long", "POST", "/publish/" + strings.Repeat("a", 256), "x", nil, 400, "channel", -1, "256"},
		{"raw channel with comma", "POST", "/publish/a,b", "x", nil, 400, "channel", -1, "','"},
		{"raw data not UTF-8", "POST", "/publish/a", "x\xff", nil, 400, "data", -1, "UTF-8"},
		{"raw data half a character", "POST", "/publish/a", "x\xc3", nil, 400, "data", -1, "UTF-8"},
		{"raw data with a surrogate", "POST", "/publish/a", "\xed\xa0\x80", nil, 400, "data", -1, "UTF-8"},
		{"raw unknown parameter", "POST", "/publish/a?evnt=x", "x", nil, 400, "evnt", -1, "event, id, retry, end"},
		{"raw parameter twice", "POST", "/publish/a?event=x&event=y", "x", nil, 400, "event", -1, "2 times"},
		{"raw malformed query", "POST", "/publish/a?event=%zz", "x", nil, 400, "", -1, "query"},
		{"raw query and header", "POST", "/publish/a?event=x", "x", []string{"Sse-Event: x"}, 400, "event", -1, "Sse-Event"},
		{"raw retry in query and header", "POST", "/publish/a?retry=1", "x", []string{"Sse-Retry: 1"}, 400, "retry", -1, "Sse-Retry"},
		{"raw header twice", "POST", "/publish/a", "x", []string{"Sse-Event: x", "Sse-Event: y"}, 400, "event", -1, "2 times"},
		{"raw retry a word", "POST", "/publish/a?retry=soon", "x", nil, 400, "retry", -1, "soon"},
		{"raw retry negative", "POST", "/publish/a?retry=-1", "x", nil, 400, "retry", -1, "-1"},
		{"raw retry fraction", "POST", "/publish/a?retry=1.5", "x", nil, 400, "retry", -1, "1.5"},
		{"raw retry empty", "POST", "/publish/a?retry=", "x", nil, 400, "retry", -1, "milliseconds"},
		{"raw retry with unit", "POST", "/publish/a?retry=3s", "x", nil, 400, "retry", -1, "3s"},
		{"raw retry more than a day", "POST", "/publish/a?retry=86400001", "x", nil, 400, "retry", -1, "86400000"},
		{"raw retry beyond 64 bits", "POST", "/publish/a?retry=99999999999999999999", "x", nil, 400, "retry", -1, "milliseconds"},
		{"raw retry in header", "POST", "/publish/a", "x", []string{"Sse-Retry: soon"}, 400, "retry", -1, "soon"},
		{"raw event reserved", "POST", "/publish/a?event=hub:open", "x", nil, 400, "event", -1, `"hub:"`},
		{"raw event reserved in header", "POST", "/publish/a", "x", []string{"Sse-Event: hub:x"}, 400, "event", -1, `"hub:"`},
		{"raw event with LF", "POST", "/publish/a?event=x%0Adata:y", "x", nil, 400, "event", -1, "LF"},
		{"raw event with CR", "POST", "/publish/a?event=x%0D", "x", nil, 400, "event", -1, "CR"},
		{"raw event with NUL", "POST", "/publish/a?event=x%00", "x", nil, 400, "event", -1, "NUL"},
		{"raw event not UTF-8", "POST", "/publish/a?event=x%ff", "x", nil, 400, "event", -1, "UTF-8"},
		{"raw event not UTF-8 in header", "POST", "/publish/a", "x", []string{"Sse-Event: x\xe9"}, 400, "event", -1, "UTF-8"},
		{"raw event too long", "POST", "/publish/a?event=" + strings.Repeat("a", 256), "x", nil, 400, "event", -1, "255"},
		{"raw id empty", "POST", "/publish/a?id=", "x", nil, 400, "id", -1, "empty"},
		{"raw id empty in header", "POST", "/publish/a", "x", []string{"Sse-Id: "}, 400, "id", -1, "empty"},
		{"raw Idempotency-Key empty", "POST", "/publish/a", "x", []string{"Idempotency-Key: "}, 400, "id", -1, "empty"},
		{"raw id in query and header", "POST", "/publish/a?id=x", "x", []string{"Sse-Id: x"}, 400, "id", -1, "Idempotency-Key"},
		{"raw id and Idempotency-Key", "POST", "/publish/a?id=x", "x", []string{"Idempotency-Key: x"}, 400, "id", -1, "Idempotency-Key"},
		{"raw id in both headers", "POST", "/publish/a", "x", []string{"Sse-Id: x", "Idempotency-Key: x"}, 400, "id", -1, "Sse-Id"},
		{"raw Idempotency-Key twice", "POST", "/publish/a", "x", []string{"Idempotency-Key: x", "Idempotency-Key: x"}, 400, "id", -1, "2 times"},
		{"raw id too long", "POST", "/publish/a?id=" + strings.Repeat("a", 256), "x", nil, 400, "id", -1, "255"},
		{"raw id with LF", "POST", "/publish/a?id=x%0Ay", "x", nil, 400, "id", -1, "LF"},
		{"raw id with NUL", "POST", "/publish/a?id=x%00", "x", nil, 400, "id", -1, "NUL"},
		{"raw id not UTF-8", "POST", "/publish/a?id=%ff", "x", nil, 400, "id", -1, "UTF-8"},
		{"raw compressed", "POST", "/publish/a", "x", []string{"Content-Encoding: gzip"}, 415, "Content-Encoding", -1, "gzip"},
		{"raw end empty", "POST", "/publish/a?end=", "x", nil, 400, "end", -1, "true or false"},
		{"raw end a number", "POST", "/publish/a?end=1", "x", nil, 400, "end", -1, "true or false"},
		{"raw end in another case", "POST", "/publish/a", "x", []string{"Sse-End: True"}, 400, "end", -1, "true or false"},
		{"raw end in query and header", "POST", "/publish/a?end=true", "x", []string{"Sse-End: true"}, 400, "end", -1, "Sse-End"},

		{"no type", "POST", "/publish", `{"channel":"a"}`, nil, 415, "Content-Type", -1, "application/json"},
		{"wrong type", "POST", "/publish", `{"channel":"a"}`, []string{"Content-Type: text/plain"}, 415, "Content-Type", -1, `"text/plain"`},
		{"wrong type and not UTF-8", "POST", "/publish", "\xff", []string{"Content-Type: application/octet-stream"}, 415, "Content-Type", -1, "octet-stream"},
		{"lines under another name", "POST", "/publish", `{"channel":"a"}`, []string{"Content-Type: application/ndjson"}, 415, "Content-Type", -1, "application/x-ndjson"},
		{"lines compressed", "POST", "/publish", `{"channel":"a"}`, []string{ndjsonCT, "Content-Encoding: gzip"}, 415, "Content-Encoding", -1, "gzip"},
		{"lines with Idempotency-Key", "POST", "/publish", `{"channel":"a"}`, []string{ndjsonCT, "Idempotency-Key: x"}, 400, "Idempotency-Key", -1, "give each line an id"},
		{"lines with a parameter", "POST", "/publish?event=x", `{"channel":"a"}`, []string{ndjsonCT}, 400, "event", -1, "parameter"},
		{"lines with Sse-Id", "POST", "/publish", `{"channel":"a"}`, []string{ndjsonCT, "Sse-Id: x"}, 400, "Sse-Id", -1, "envelope"},
		{"parameter of an envelope", "POST", "/publish?event=x", `{"channel":"a"}`, []string{jsonCT}, 400, "event", -1, "parameter"},
		{"header of an envelope", "POST", "/publish", `{"channel":"a"}`, []string{jsonCT, "Sse-End: true"}, 400, "Sse-End", -1, "envelope"},
		{"Idempotency-Key empty", "POST", "/publish", `{"channel":"a"}`, []string{jsonCT, "Idempotency-Key: "}, 400, "Idempotency-Key", -1, "255"},
		{"Idempotency-Key twice", "POST", "/publish", `{"channel":"a"}`, []string{jsonCT, "Idempotency-Key: x", "Idempotency-Key: x"}, 400, "Idempotency-Key", -1, "one key"},
		{"Idempotency-Key too long", "POST", "/publish", `[{"channel":"a"}]`, []string{jsonCT, "Idempotency-Key: " + strings.Repeat("a", 256)}, 400, "Idempotency-Key", -1, "255"},
		{"Idempotency-Key and id", "POST", "/publish", `{"channel":"a","id":"x"}`, []string{jsonCT, "Idempotency-Key: x"}, 400, "id", -1, "one of them"},
		{"Idempotency-Key and id in an array", "POST", "/publish", at1 + `{"channel":"a","id":"x"}]`, []string{jsonCT, "Idempotency-Key: x"}, 400, "id", 1, "one of them"},
		{"Idempotency-Key and id in a form", "POST", "/publish", `channel=a&id=x`, []string{form, "Idempotency-Key: x"}, 400, "id", -1, "one of them"},
		{"JSON compressed", "POST", "/publish", `{"channel":"a"}`, []string{jsonCT, "Content-Encoding: br"}, 415, "Content-Encoding", -1, "br"},

		{"JSON empty", "POST", "/publish", "", []string{jsonCT}, 400, "", -1, "ends"},
		{"JSON string", "POST", "/publish", `"a"`, []string{jsonCT}, 400, "", -1, "object"},
		{"JSON null", "POST", "/publish", `null`, []string{jsonCT}, 400, "", -1, "object"},
		{"JSON number", "POST", "/publish", `1`, []string{jsonCT}, 400, "", -1, "object"},
		{"JSON broken", "POST", "/publish", `{"channel":"a",}`, []string{jsonCT}, 400, "", -1, "not valid JSON"},
		{"JSON without quotes", "POST", "/publish", `{channel:"a"}`, []string{jsonCT}, 400, "", -1, "not valid JSON"},
		{"JSON cut off in a string", "POST", "/publish", `{"channel":"a`, []string{jsonCT}, 400, "", -1, "ends"},
		{"JSON cut off behind a field", "POST", "/publish", `{"channel":"a"`, []string{jsonCT}, 400, "", -1, "ends"},
		{"JSON cut off behind a key", "POST", "/publish", `{"channel"`, []string{jsonCT}, 400, "", -1, "ends"},
		{"JSON and more", "POST", "/publish", `{"channel":"a"} x`, []string{jsonCT}, 400, "", -1, "follows"},
		{"JSON and a brace", "POST", "/publish", `{"channel":"a"}}`, []string{jsonCT}, 400, "", -1, "follows"},
		{"JSON twice", "POST", "/publish", `{"channel":"a"}{"channel":"a"}`, []string{jsonCT}, 400, "", -1, "array"},
		{"JSON array and more", "POST", "/publish", at1 + `{"channel":"a"}],`, []string{jsonCT}, 400, "", -1, "follows"},
		{"JSON not UTF-8", "POST", "/publish", "{\"channel\":\"a\",\"data\":\"\xff\"}", []string{jsonCT}, 400, "", -1, "UTF-8"},
		{"JSON half a surrogate pair", "POST", "/publish", `{"channel":"a","data":"\ud800"}`, []string{jsonCT}, 400, "data", -1, ""},
		{"JSON byte order mark", "POST", "/publish", "\ufeff{\"channel\":\"a\"}", []string{jsonCT}, 400, "", -1, "not valid JSON"},
		{"JSON deeply nested", "POST", "/publish", `{"channel":"a","data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, []string{jsonCT}, 400, "", -1, "depth"},

		{"unknown field", "POST", "/publish", `{"channel":"a","evnt":"x"}`, []string{jsonCT}, 400, "evnt", -1, `"evnt"`},
		{"field in another case", "POST", "/publish", `{"channel":"a","Data":"x"}`, []string{jsonCT}, 400, "Data", -1, `"Data"`},
		{"duplicate field", "POST", "/publish", `{"channel":"a","data":"x","data":"x"}`, []string{jsonCT}, 400, "data", -1, "twice"},
		{"duplicate field, escaped", "POST", "/publish", `{"channel":"a","data":"x","d\u0061ta":"x"}`, []string{jsonCT}, 400, "data", -1, "twice"},
		{"channel and channels", "POST", "/publish", `{"channel":"a","channels":["a"]}`, []string{jsonCT}, 400, "channels", -1, "both"},
		{"no channel", "POST", "/publish", `{"data":"x"}`, []string{jsonCT}, 400, "channels", -1, "at least one"},
		{"empty object", "POST", "/publish", `{}`, []string{jsonCT}, 400, "channels", -1, "at least one"},
		{"no channels", "POST", "/publish", `{"channels":[]}`, []string{jsonCT}, 400, "channels", -1, "at least one"},
		{"channel twice", "POST", "/publish", `{"channels":["a","b","a"]}`, []string{jsonCT}, 400, "channels", -1, `"a"`},
		{"too many channels", "POST", "/publish", `{"channels":[` + many + `]}`, []string{jsonCT}, 400, "channels", -1, "100"},
		{"channel a number", "POST", "/publish", `{"channel":1}`, []string{jsonCT}, 400, "channel", -1, "string"},
		{"channel null", "POST", "/publish", `{"channel":null}`, []string{jsonCT}, 400, "channel", -1, "string"},
		{"channel an array", "POST", "/publish", `{"channel":["a"]}`, []string{jsonCT}, 400, "channel", -1, "string"},
		{"channels a string", "POST", "/publish", `{"channels":"a"}`, []string{jsonCT}, 400, "channels", -1, "array"},
		{"channels null", "POST", "/publish", `{"channels":null}`, []string{jsonCT}, 400, "channels", -1, "array"},
		{"channels with a number", "POST", "/publish", `{"channels":["a",1]}`, []string{jsonCT}, 400, "channels", -1, "strings"},
		{"channels with null", "POST", "/publish", `{"channels":["a",null]}`, []string{jsonCT}, 400, "channels", -1, ""},
		{"channel empty", "POST", "/publish", `{"channel":""}`, []string{jsonCT}, 400, "channel", -1, "empty"},
		{"channel a pattern", "POST", "/publish", `{"channel":"a*"}`, []string{jsonCT}, 400, "channel", -1, "'*'"},
		{"channel with a control character", "POST", "/publish", `{"channel":"a\u0007"}`, []string{jsonCT}, 400, "channel", -1, `\a`},
		{"event a number", "POST", "/publish", `{"channel":"a","event":1}`, []string{jsonCT}, 400, "event", -1, "string"},
		{"event null", "POST", "/publish", `{"channel":"a","event":null}`, []string{jsonCT}, 400, "event", -1, "string"},
		{"event with LF", "POST", "/publish", `{"channel":"a","event":"a\nb"}`, []string{jsonCT}, 400, "event", -1, "LF"},
		{"event with NUL", "POST", "/publish", `{"channel":"a","event":"a\u0000"}`, []string{jsonCT}, 400, "event", -1, "NUL"},
		{"event reserved", "POST", "/publish", `{"channel":"a","event":"hub:close"}`, []string{jsonCT}, 400, "event", -1, `"hub:"`},
		{"retry a string", "POST", "/publish", `{"channel":"a","retry":"1"}`, []string{jsonCT}, 400, "retry", -1, "milliseconds"},
		{"retry fraction", "POST", "/publish", `{"channel":"a","retry":1.5}`, []string{jsonCT}, 400, "retry", -1, "1.5"},
		{"retry exponent", "POST", "/publish", `{"channel":"a","retry":1e3}`, []string{jsonCT}, 400, "retry", -1, "1e3"},
		{"retry negative", "POST", "/publish", `{"channel":"a","retry":-1}`, []string{jsonCT}, 400, "retry", -1, "-1"},
		{"retry null", "POST", "/publish", `{"channel":"a","retry":null}`, []string{jsonCT}, 400, "retry", -1, "null"},
		{"retry more than a day", "POST", "/publish", `{"channel":"a","retry":86400001}`, []string{jsonCT}, 400, "retry", -1, "86400000"},
		{"id empty", "POST", "/publish", `{"channel":"a","id":""}`, []string{jsonCT}, 400, "id", -1, "empty"},
		{"id a number", "POST", "/publish", `{"channel":"a","id":1}`, []string{jsonCT}, 400, "id", -1, "string"},
		{"id null", "POST", "/publish", `{"channel":"a","id":null}`, []string{jsonCT}, 400, "id", -1, "string"},
		{"id with CR", "POST", "/publish", `{"channel":"a","id":"x\r"}`, []string{jsonCT}, 400, "id", -1, "CR"},
		{"id half a surrogate pair", "POST", "/publish", `{"channel":"a","id":"\ud800"}`, []string{jsonCT}, 400, "id", -1, ""},
		{"end a string", "POST", "/publish", `{"channel":"a","end":"true"}`, []string{jsonCT}, 400, "end", -1, "true or false"},
		{"end a number", "POST", "/publish", `{"channel":"a","end":1}`, []string{jsonCT}, 400, "end", -1, "true or false"},
		{"end null", "POST", "/publish", `{"channel":"a","end":null}`, []string{jsonCT}, 400, "end", -1, "true or false"},

		{"array empty", "POST", "/publish", `[]`, []string{jsonCT}, 400, "", -1, "empty"},
		{"array cut off", "POST", "/publish", `[{"channel":"a","data":"1"}`, []string{jsonCT}, 400, "", -1, "ends"},
		{"array cut off behind a comma", "POST", "/publish", at1, []string{jsonCT}, 400, "", 1, "ends"},
		{"array cut off in an event", "POST", "/publish", at1 + `{"channel":"a"`, []string{jsonCT}, 400, "", 1, "ends"},
		{"array with a trailing comma", "POST", "/publish", `[{"channel":"a","data":"1"},]`, []string{jsonCT}, 400, "", 1, "not valid JSON"},
		{"array of numbers", "POST", "/publish", at1 + `1]`, []string{jsonCT}, 400, "", 1, "object"},
		{"array of arrays", "POST", "/publish", `[[{"channel":"a"}]]`, []string{jsonCT}, 400, "", 0, "object"},
		{"array with null", "POST", "/publish", at1 + `null]`, []string{jsonCT}, 400, "", 1, "object"},
		{"array, unknown field", "POST", "/publish", at1 + `{"channel":"a","x":1}]`, []string{jsonCT}, 400, "x", 1, `"x"`},
		{"array, duplicate field", "POST", "/publish", at1 + `{"channel":"a","channel":"a"}]`, []string{jsonCT}, 400, "channel", 1, "twice"},
		{"array, wrong type", "POST", "/publish", at1 + `{"channel":"a","event":{}}]`, []string{jsonCT}, 400, "event", 1, "string"},
		{"array, no channel", "POST", "/publish", at1 + `{"data":"x"}]`, []string{jsonCT}, 400, "channels", 1, "at least one"},
		{"array, bad channel", "POST", "/publish", at1 + `{"channel":"a b"}]`, []string{jsonCT}, 400, "channel", 1, "' '"},
		{"array, bad first", "POST", "/publish", `[{"channel":""},{"channel":"a"}]`, []string{jsonCT}, 400, "channel", 0, "empty"},
		{"array, reserved event", "POST", "/publish", at1 + `{"channel":"a","event":"hub:x"}]`, []string{jsonCT}, 400, "event", 1, `"hub:"`},
		{"array, bad retry", "POST", "/publish", at1 + `{"channel":"a","retry":"x"}]`, []string{jsonCT}, 400, "retry", 1, "milliseconds"},
		{"array, retry too long", "POST", "/publish", at1 + `{"channel":"a","retry":86400001}]`, []string{jsonCT}, 400, "retry", 1, "86400000"},
		{"array, bad id", "POST", "/publish", at1 + `{"channel":"a","id":"x\n"}]`, []string{jsonCT}, 400, "id", 1, "LF"},
		{"array, bad end", "POST", "/publish", at1 + `{"channel":"a","end":"no"}]`, []string{jsonCT}, 400, "end", 1, "true or false"},
		{"array, after the end", "POST", "/publish", `[{"channel":"a","end":true},{"channel":"a"}]`, []string{jsonCT}, 409, "channel", 1, "another name"},

		{"form empty", "POST", "/publish", "", []string{form}, 400, "channels", -1, "at least one"},
		{"form unknown field", "POST", "/publish", "channel=a&evnt=x", []string{form}, 400, "evnt", -1, `"evnt"`},
		{"form field twice", "POST", "/publish", "channel=a&data=x&data=y", []string{form}, 400, "data", -1, "2 times"},
		{"form channel twice", "POST", "/publish", "channel=a&channel=b", []string{form}, 400, "channel", -1, "2 times"},
		{"form channel and channels", "POST", "/publish", "channel=a&channels=b", []string{form}, 400, "channels", -1, "both"},
		{"form malformed", "POST", "/publish", "channel=a&data=%zz", []string{form}, 400, "", -1, "form"},
		{"form semicolon", "POST", "/publish", "channel=a;data=x", []string{form}, 400, "", -1, "semicolon"},
		{"form not UTF-8, escaped", "POST", "/publish", "channel=a&data=%ff", []string{form}, 400, "data", -1, "UTF-8"},
		{"form not UTF-8", "POST", "/publish", "channel=a&data=\xff", []string{form}, 400, "data", -1, "UTF-8"},
		{"form bad retry", "POST", "/publish", "channel=a&retry=x", []string{form}, 400, "retry", -1, "milliseconds"},
		{"form id empty", "POST", "/publish", "channel=a&id=", []string{form}, 400, "id", -1, "empty"},
		{"form id twice", "POST", "/publish", "channel=a&id=x&id=x", []string{form}, 400, "id", -1, "2 times"},
		{"form end yes", "POST", "/publish", "channel=a&end=yes", []string{form}, 400, "end", -1, "true or false"},
		{"form reserved event", "POST", "/publish", "channel=a&event=hub:x", []string{form}, 400, "event", -1, `"hub:"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, door := range doors(l) {
				before := l.numbers("").Position
				got := l.do(tc.method, withQuery(door.base+tc.path, door.query), tc.body, tc.header...)
				p := got.problem(t, tc.status, tc.detail)
				if p.Status == 0 {
					t.Logf("through %s", door.name)
				} else if index := indexOf(p); p.Field != tc.field || index != tc.index {
					t.Errorf("%s: got field %q and index %d, want %q and %d", door.name, p.Field, index, tc.field, tc.index)
				}
				if tc.status == 405 && !strings.Contains(got.Header.Get("Allow"), tc.detail) {
					t.Errorf("%s: got Allow %q", door.name, got.Header.Get("Allow"))
				}
				if after := l.numbers("").Position; after != before {
					t.Errorf("%s: something was published: %s after %s", door.name, after, before)
				}
			}
		})
	}
}

func indexOf(p problemReply) int {
	if p.Index == nil {
		return -1
	}
	return *p.Index
}

// TestPublishAllOrNothing promises to subscribers that nothing of a refused
// array reaches them.
func TestPublishAllOrNothing(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	s, _ := l.open("?channel=*")
	l.do("POST", l.admin+"/sse/publish", `[{"channel":"a","data":"no"},{"channel":"b","data":"no","event":"x\n"}]`, jsonCT).problem(t, 400)
	if r := l.publish("a", "yes"); r.ID.Seq != 1 {
		t.Errorf("got position %s, want the first", r.ID)
	}
	expectData(t, s, "yes")
}

// TestPublishSlashes promises that a channel name with slashes and dots in any
// place can be published to by its path. Caddy's admin API has a mux in front
// that redirects paths which are not clean; there nothing is published then,
// neither under this name nor under the clean one.
func TestPublishSlashes(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	for _, tc := range []struct {
		path  string
		clean bool
	}{
		{"a/b", true},
		{"a/", true},
		{"a%2Fb", true},
		{"a.b/..c", true},
		{"/a", false},
		{"a//b", false},
		{"https://example.com/x", false},
		{"a/../b", false},
		{"./a", false},
		{"..", false},
		{"a%2F%2Fb", false},
	} {
		name := strings.ReplaceAll(tc.path, "%2F", "/")
		s, _ := l.open("?channel=" + escape(name))
		for _, door := range doors(l)[:2] {
			before := l.numbers("").Position
			got := l.do("POST", door.base+"/publish/"+tc.path, "x")
			switch {
			case got.StatusCode == 200:
				expectData(t, s, "x")
			case tc.clean || door.name == "sse_api":
				t.Errorf("%s: %q: got %d, Location %q, %.200s", door.name, tc.path, got.StatusCode, got.Header.Get("Location"), got.body)
			case l.numbers("").Position != before:
				t.Errorf("%s: %q: something else was published", door.name, tc.path)
			}
		}
		l.do("POST", l.admin+"/sse/publish", `{"channel":"`+name+`","data":"envelope"}`, jsonCT).into(t, new(receipt))
		expectData(t, s, "envelope")
		s.Close()
	}
}

// TestPublishBodyLimit promises 413 beyond max_body, however the length is
// told, and that a body of exactly that size is taken.
func TestPublishBodyLimit(t *testing.T) {
	l := loadLab(t, "", "sse_api /sse* {\n\t\tunauthenticated\n\t\tmax_body 1KiB\n\t}")
	address := l.site + "/sse/publish/a"
	for _, tc := range []struct {
		name   string
		size   int
		length bool
		status int
	}{
		{"exactly, with length", 1024, true, 200},
		{"exactly, chunked", 1024, false, 200},
		{"one more, with length", 1025, true, 413},
		{"one more, chunked", 1025, false, 413},
		{"many more, with length", 1 << 20, true, 413},
		{"many more, chunked", 1 << 20, false, 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			var body io.Reader = bytes.NewReader(bytes.Repeat([]byte("x"), tc.size))
			if !tc.length {
				body = io.MultiReader(body) // net/http does not know its length
			}
			got := l.send(l.request("POST", address, body))
			if tc.status == 200 {
				got.into(t, new(receipt))
			} else {
				got.problem(t, tc.status, "1024", "max_body")
			}
		})
	}
	l.do("POST", l.admin+"/sse/publish/a", strings.Repeat("x", 1<<20)).into(t, new(receipt))
	l.do("POST", l.admin+"/sse/publish/a", strings.Repeat("x", 1<<20+1)).problem(t, 413, "1048576")
}

// TestPublishTruncated promises that a body which ends before it is complete
// is not published.
func TestPublishTruncated(t *testing.T) {
	l := loadLab(t, "", openAPI)
	for _, tc := range []struct {
		name, head, body string
	}{
		{"by length", "POST /sse/publish/a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 10\r\n\r\n", "12345"},
		{"chunked, in a chunk", "POST /sse/publish/a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n", "a\r\n12345"},
		{"chunked, without the end", "POST /sse/publish/a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\n12345\r\n"},
		{"JSON by length", "POST /sse/publish HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n", `{"channel":"a"}`},
	} {
		for _, port := range []int{l.sitePort, l.adminPort} {
			before := l.numbers("").Position
			got := l.raw("tcp", "127.0.0.1:"+strconv.Itoa(port), fmt.Sprintf(tc.head, port)+tc.body)
			if got.StatusCode != 400 || !strings.Contains(got.body, "nothing was published") {
				t.Errorf("%s: got %d %s", tc.name, got.StatusCode, got.body)
			}
			if after := l.numbers("").Position; after != before {
				t.Errorf("%s: it was published", tc.name)
			}
		}
	}
}

// raw sends bytes, and that there are no more.
func (l *lab) raw(network, address, request string) reply {
	l.t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		l.t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		l.t.Fatalf("no answer to %.200q: %s", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return reply{resp, string(body)}
}

// TestPublishToken promises that nothing is answered without one of the
// tokens, and that they may come from the environment or a file.
func TestPublishToken(t *testing.T) {
	t.Setenv("SSE_TEST_TOKEN", "from-env")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := loadLab(t, "", "sse_api /sse* {\n\t\ttoken first {env.SSE_TEST_TOKEN} {file."+file+"} \"with space\"\n\t}")
	for _, tc := range []struct {
		name   string
		header []string
		status int
	}{
		{"none", nil, 401},
		{"first", []string{"Authorization: Bearer first"}, 200},
		{"scheme in another case", []string{"Authorization: bearer first"}, 200},
		{"of the environment", []string{"Authorization: Bearer from-env"}, 200},
		{"of a file", []string{"Authorization: Bearer from-file"}, 200},
		{"with a space", []string{"Authorization: Bearer with space"}, 200},
		{"wrong", []string{"Authorization: Bearer second"}, 401},
		{"empty", []string{"Authorization: Bearer "}, 401},
		{"scheme alone", []string{"Authorization: Bearer"}, 401},
		{"no scheme", []string{"Authorization: first"}, 401},
		{"another scheme", []string{"Authorization: Basic first"}, 401},
		{"a prefix", []string{"Authorization: Bearer firs"}, 401},
		{"longer", []string{"Authorization: Bearer first1"}, 401},
		{"another case", []string{"Authorization: Bearer FIRST"}, 401},
		{"both of two", []string{"Authorization: Bearer first from-env"}, 401},
		{"the placeholder", []string{"Authorization: Bearer {env.SSE_TEST_TOKEN}"}, 401},
		{"wrong before right", []string{"Authorization: Bearer wrong", "Authorization: Bearer first"}, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, request := range [][3]string{{"POST", "/publish/a", "x"}, {"GET", "", ""}, {"GET", "/channels", ""}, {"GET", "/health", ""}} {
				got := l.do(request[0], l.site+"/sse"+request[1], request[2], tc.header...)
				if tc.status == 200 {
					if got.StatusCode != 200 {
						t.Errorf("%s: got %d %s", request[1], got.StatusCode, got.body)
					}
					continue
				}
				got.problem(t, tc.status, "token")
				if challenge := got.Header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "Bearer ") {
					t.Errorf("%s: got WWW-Authenticate %q", request[1], challenge)
				}
				if strings.Contains(got.body, "first") || strings.Contains(got.body, "from-env") {
					t.Errorf("%s: the answer tells a token: %s", request[1], got.body)
				}
			}
			// What is not there is not told to strangers either.
			want := tc.status
			if want == 200 {
				want = 404
			}
			l.do("GET", l.site+"/sse/nosuch", "", tc.header...).problem(t, want)
		})
	}
}

// TestPublishAllow promises that only allowed channels can be published to,
// all of an event's and of an array's or none.
func TestPublishAllow(t *testing.T) {
	l := loadLab(t, "", "sse_api /sse* {\n\t\tunauthenticated\n\t\tallow exact ab*\n\t}")
	for _, tc := range []struct {
		name, path, body string
		header           []string
		status, index    int
	}{
		{"exact", "/publish/exact", "x", nil, 200, -1},
		{"prefix", "/publish/abc", "x", nil, 200, -1},
		{"other", "/publish/other", "x", nil, 403, -1},
		{"shorter", "/publish/a", "x", nil, 403, -1},
		{"envelope", "/publish", `{"channel":"abc"}`, []string{jsonCT}, 200, -1},
		{"envelope other", "/publish", `{"channel":"other"}`, []string{jsonCT}, 403, -1},
		{"envelope one of two", "/publish", `{"channels":["abc","other"]}`, []string{jsonCT}, 403, -1},
		{"form other", "/publish", "channel=other", []string{form}, 403, -1},
		{"array one of two", "/publish", `[{"channel":"abc"},{"channel":"other"}]`, []string{jsonCT}, 403, 1},
		{"pattern", "/publish/ab*", "x", nil, 400, -1},
		{"malformed", "/publish/x%20y", "x", nil, 400, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			before := l.numbers("").Position
			got := l.do("POST", l.site+"/sse"+tc.path, tc.body, tc.header...)
			if tc.status == 200 {
				if got.StatusCode != 200 {
					t.Errorf("got %d %s", got.StatusCode, got.body)
				}
				return
			}
			p := got.problem(t, tc.status)
			if tc.status == 403 && (!strings.Contains(p.Detail, "allow") || p.Field == "") {
				t.Errorf("got detail %q and field %q", p.Detail, p.Field)
			}
			if indexOf(p) != tc.index {
				t.Errorf("got index %d, want %d", indexOf(p), tc.index)
			}
			if after := l.numbers("").Position; after != before {
				t.Error("something was published")
			}
		})
	}
}

// TestAPIBase promises that the requests are where the directive's matcher
// says: below its path, or at the root.
func TestAPIBase(t *testing.T) {
	for _, tc := range []struct{ name, directives, base string }{
		{"path", "sse_api /deep/sse* {\n\t\tunauthenticated\n\t}", "/deep/sse"},
		{"path with slash", "sse_api /deep/sse/* {\n\t\tunauthenticated\n\t}", "/deep/sse"},
		{"none", "sse_api {\n\t\tunauthenticated\n\t}", ""},
		{"any", "sse_api * {\n\t\tunauthenticated\n\t}", ""},
		{"root", "sse_api /* {\n\t\tunauthenticated\n\t}", ""},
		{"handle_path", "handle_path /x/* {\n\t\tsse_api {\n\t\t\tunauthenticated\n\t\t}\n\t}", "/x"},
		{"handle_path and path", "handle_path /x/* {\n\t\tsse_api /y* {\n\t\t\tunauthenticated\n\t\t}\n\t}", "/x/y"},
		{"named matcher", "@local remote_ip 127.0.0.1\n\tsse_api @local {\n\t\tunauthenticated\n\t}", ""},
		{"handle", "handle /x/* {\n\t\tsse_api /x/* {\n\t\t\tunauthenticated\n\t\t}\n\t}", "/x"},
		// Caddy matches paths in any case.
		{"another case", "sse_api /Deep* {\n\t\tunauthenticated\n\t}", "/deep"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := loadLab(t, "", tc.directives)
			l.do("POST", l.site+tc.base+"/publish/a", "x").into(t, new(receipt))
			l.do("GET", l.site+tc.base+"/channels", "").into(t, new(any))
			if got := l.do("GET", l.site+tc.base+"/", ""); got.StatusCode != 200 {
				t.Errorf("numbers: got %d", got.StatusCode)
			}
		})
	}
}

// TestAPIUnixSocket promises that the endpoint may be on a Unix socket.
func TestAPIUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sse") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l := newLab(t)
	l.load("", anyChannel+"\n}\nhttp:// {\n\tbind unix/"+socket+"\n\t"+openAPI)
	s, _ := l.open("?channel=a")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	over := *l
	over.once = &http.Client{Transport: transport}
	var r receipt
	over.do("POST", "http://localhost/sse/publish/a?event=x", "by socket").into(t, &r)
	if m := s.Expect("x"); m.Data != "by socket" || m.ID != r.ID.String() {
		t.Errorf("got %+v, and the receipt %+v", m, r)
	}
	over.do("GET", "http://localhost/sse/nosuch", "").problem(t, 404)
}

// TestAdminHub promises that the admin API serves the hub that the query
// names, and tells which there are when it is none of them.
func TestAdminHub(t *testing.T) {
	l := loadLab(t, "sse stocks\n\tsse chat", anyChannel)
	if n := l.numbers("?hub=stocks"); n.Hub != "stocks" {
		t.Errorf("got %q", n.Hub)
	}
	if n := l.numbers("?hub="); n.Hub != "default" {
		t.Errorf("got %q", n.Hub)
	}
	for _, path := range []string{"", "/health", "/channels", "/channels/a"} {
		p := l.do("GET", l.admin+"/sse"+path+"?hub=nosuch", "").problem(t, 404, `"nosuch"`, "chat, default, stocks")
		if p.Field != "hub" {
			t.Errorf("%s: got field %q", path, p.Field)
		}
	}
	l.do("POST", l.admin+"/sse/publish/a?hub=nosuch", "x").problem(t, 404, "chat, default, stocks")
	// Two are ambiguous, and so is what cannot be read; nothing is guessed.
	l.do("POST", l.admin+"/sse/publish/a?hub=stocks&hub=chat", "x").problem(t, 400, "hub")
	l.do("POST", l.admin+"/sse/publish/a?hub=%zz", "x").problem(t, 400, "query")
	for _, hub := range []string{"default", "stocks", "chat"} {
		if n := l.numbers("?hub=" + hub); n.Published != 0 {
			t.Errorf("%s: %d events were published", hub, n.Published)
		}
	}
}

// TestAdminWithoutHub promises an answer that says what to do when nothing of
// this module is configured.
func TestAdminWithoutHub(t *testing.T) {
	l := loadLab(t, "", "respond hello")
	l.do("GET", l.admin+"/sse", "").problem(t, 404, "sse")
	l.do("POST", l.admin+"/sse/publish/a", "x").problem(t, 404, "sse")
}

// TestPublishCrossOrigin promises that a page of another origin, open in a
// browser on this machine, cannot publish through a door without a lock. A
// request with a token is not forged: browsers do not add tokens.
func TestPublishCrossOrigin(t *testing.T) {
	l := loadLab(t, "", openAPI+"\n\tsse_api /locked* {\n\t\ttoken s3cret\n\t}")
	crossSite := []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Content-Type: text/plain"}
	for _, tc := range []struct {
		name, base string
		header     []string
		status     int
	}{
		{"sse_api, cross-site", l.site + "/sse", crossSite, 403},
		{"sse_api, origin alone", l.site + "/sse", crossSite[:1], 403},
		{"sse_api, same origin", l.site + "/sse", []string{"Origin: " + l.site, "Sec-Fetch-Site: same-origin"}, 200},
		{"sse_api, no browser", l.site + "/sse", nil, 200},
		{"sse_api with a token, cross-site", l.site + "/locked", append([]string{"Authorization: Bearer s3cret"}, crossSite...), 200},
		{"admin, cross-site", l.admin + "/sse", crossSite, 400}, // says Caddy
		{"admin, origin alone", l.admin + "/sse", crossSite[:1], 403},
		{"admin, no browser", l.admin + "/sse", nil, 200},
	} {
		before := l.numbers("").Position
		got := l.do("POST", tc.base+"/publish/a", "x", tc.header...)
		if got.StatusCode != tc.status {
			t.Errorf("%s: got %d, want %d: %s", tc.name, got.StatusCode, tc.status, got.body)
		}
		if published := l.numbers("").Position != before; published != (tc.status == 200) {
			t.Errorf("%s: published: %v", tc.name, published)
		}
	}
}
