package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
)

// FuzzEnvelope promises of any body that it is refused with status 400 or read
// as encoding/json reads it, and that what is accepted then means the same on
// the wire.
func FuzzEnvelope(f *testing.F) {
	for _, seed := range []string{
		`{"channel":"a","data":"x","event":"e","retry":5}`,
		`{"channels":["a","b"],"data":{"a":[1,2.5e3,null,true]}}`,
		`[{"channel":"a"},{"channel":"b","data":""}]`,
		`{"channel":"a","data":"\ud83d\ude00\r\n\u2028","id":"x"}`,
		`{"ch\u0061nnel":"a","channel":"b"}`,
		`{"channel":"a","id":"x","end":true}`, `[{"channel":"a","end":false},{"channel":"a","id":"\u00e9","end": true }]`, `{"channel":"a","end":"true"}`, `{"channel":"a","id":""}`,
		"[]", "{}", "null", `"a"`, "[[]]", "[{},1]", `{"channel":null}`, `{"channel":"a"}x`, `{"channel":"a",}`, `{"retry":1e3}`, `{"retry":-0}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) {
			return // refused before
		}
		events, isArray, err := caddymodule.ParseJSON(body)
		if err != nil {
			if status := caddymodule.ProblemStatus(err); status != 400 {
				t.Errorf("got status %d for %q: %s", status, body, err)
			}
			return
		}
		var envelopes []map[string]json.RawMessage
		if isArray {
			err = json.Unmarshal(body, &envelopes)
		} else {
			envelopes = make([]map[string]json.RawMessage, 1)
			err = json.Unmarshal(body, &envelopes[0])
		}
		if err != nil {
			t.Fatalf("encoding/json refuses %q: %s", body, err)
		}
		if len(events) != len(envelopes) || len(events) == 0 {
			t.Fatalf("got %d events, want %d", len(events), len(envelopes))
		}
		for i := range events {
			compareEnvelope(t, events[i], envelopes[i])
			checkAccepted(t, events[i])
		}
	})
}

func compareEnvelope(t *testing.T, e sse.Event, envelope map[string]json.RawMessage) {
	t.Helper()
	var want sse.Event
	for name, value := range envelope {
		var err error
		switch name {
		case "channel":
			want.Channels = make([]string, 1)
			err = json.Unmarshal(value, &want.Channels[0])
		case "channels":
			err = json.Unmarshal(value, &want.Channels)
		case "event":
			err = json.Unmarshal(value, &want.Name)
		case "data":
			if err = json.Unmarshal(value, &want.Data); err != nil || string(value) == "null" {
				var b bytes.Buffer
				err = json.Compact(&b, value)
				want.Data = b.String()
			}
		case "retry":
			var ms int64
			err = json.Unmarshal(value, &ms)
			want.Retry = time.Duration(ms) * time.Millisecond
		case "id":
			err = json.Unmarshal(value, &want.ID)
		case "end":
			var end bool
			if err = json.Unmarshal(value, &end); end {
				want.End = sse.EndAfter
			}
		default:
			t.Errorf("the field %q is accepted", name)
		}
		if err != nil {
			t.Errorf("%s: %s is accepted: %s", name, value, err)
		}
	}
	if !slices.Equal(e.Channels, want.Channels) || e.Name != want.Name || e.Data != want.Data || e.Retry != want.Retry || e.ID != want.ID || e.End != want.End {
		t.Errorf("got %+v, want %+v", e, want)
	}
	if _, given := envelope["id"]; given && e.ID == "" {
		t.Error("an empty id is accepted")
	}
}

// checkAccepted checks that an event is refused by field, or comes out of the
// stream as it went in.
func checkAccepted(t *testing.T, e sse.Event) {
	t.Helper()
	if err := e.Validate(); err != nil {
		var field *sse.FieldError
		if !errors.As(err, &field) || field.Field == "" || field.Reason == "" {
			t.Errorf("got %T %s", err, err)
		}
		return
	}
	at := sse.Position{Epoch: "fuzz", Seq: 7}
	stream := sse.AppendEvent(nil, at, &e)
	decoder := sse.NewDecoder(bytes.NewReader(stream))
	decoder.SetLimit(-1)
	m, err := decoder.Decode()
	if err != nil {
		t.Fatalf("%+v is sent as %q: %s", e, stream, err)
	}
	name := e.Name
	if name == "" {
		name = "message"
	}
	data := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(e.Data)
	if m.Event != name || m.Data != data || m.ID != at.String() {
		t.Errorf("%+v is sent as %q, which is read as %+v", e, stream, m)
	}
	if _, err := decoder.Decode(); err == nil {
		t.Errorf("%+v is sent as more than one event: %q", e, stream)
	}
}

// FuzzForm promises of any form that it is refused with status 400 or read as
// net/url reads it.
func FuzzForm(f *testing.F) {
	for _, seed := range []string{
		"channel=a&data=x&event=e&retry=5", "channels=a&channels=b", "channel=a&data=%0d%0a+%ff", "channel=a;data=x", "channel=a&channel=b", "", "&&=", "data", "retry=-1", "id=x", "channel=a&id=x&end=true", "end=false", "end=", "id=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		e, err := caddymodule.ParseForm(body)
		if err != nil {
			if status := caddymodule.ProblemStatus(err); status != 400 {
				t.Errorf("got status %d for %q: %s", status, body, err)
			}
			return
		}
		form, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("net/url refuses %q: %s", body, err)
		}
		if e.ID != form.Get("id") || (e.End == sse.EndAfter) != (form.Get("end") == "true") || e.End == sse.EndOnly {
			t.Errorf("got %+v of %q", e, body)
		}
		if e.Name != form.Get("event") || e.Data != form.Get("data") || !slices.Equal(e.Channels, append(form["channel"], form["channels"]...)) {
			t.Errorf("got %+v of %q", e, body)
		}
		checkAccepted(t, e)
	})
}

// FuzzLines promises of any body, in whatever pieces it comes and wherever it
// breaks off, that each of its lines is found as splitting the whole would find
// it, or refused if it is too long or not complete.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"{}\n{}\n", "{}", "\n\n", "", "a\r\n\r\nb", " \t\n", "12345678\n123456789\n1", "\x00\n\xff\n",
	} {
		f.Add([]byte(seed), uint8(3), false)
		f.Add([]byte(seed), uint8(0), true)
	}
	const limit = 8
	f.Fuzz(func(t *testing.T, body []byte, piece uint8, cut bool) {
		var input io.Reader = bytes.NewReader(body)
		if cut {
			input = io.MultiReader(input, iotest.ErrReader(io.ErrUnexpectedEOF))
		}
		got := caddymodule.ReadLines(&pieces{input, int(piece) + 1}, limit)
		var want []caddymodule.Line
		texts := strings.Split(string(body), "\n")
		for i, text := range texts {
			last := i == len(texts)-1
			line := caddymodule.Line{Number: i + 1, Text: text}
			switch {
			case len(text) > limit:
				line.Text, line.Status = "", 413
			case last && cut && text != "":
				line.Text, line.Status = "", 400
			case strings.TrimSpace(text) == "":
				continue
			}
			want = append(want, line)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q is read as %+v, want %+v", body, got, want)
		}
	})
}

// pieces reads no more than a few bytes at a time.
type pieces struct {
	io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(p.size, len(b))]) }

// FuzzCaddyfile promises that no Caddyfile makes the parser panic or hang.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"sse {\n\tallow *\n\tlimits {\n\t\tchannels 1\n\t}\n}",
		"sse /a* {\n\tchannel a-{http.auth.user.id}-*\n\tkeepalive off\n\toverload 503\n}",
		"sse_api /sse* {\n\ttoken {env.X} b\n\tmax_body 1KiB\n}",
		"sse {\n\tuser {header.X}\n\tjwt {\n\t\tkey x\n\t\talg HS256\n\t\tleeway off\n\t\tfrom query t\n\t}\n\torigins https://*.example.com *\n\tsession off\n\tlimits {\n\t\tper_ip 1\n\t}\n}",
		"sse_api {\n\tjwt {\n\t\tjwks https://example.com\n\t\tclaim a.b\n\t}\n\trate 0.5 10\n}",
		"sse_api @m {\n\tunauthenticated {\n\t}\n}",
		"sse stocks {\n\tbroker memory {\n\t}\n\thistory 1 1s\n\tdrain off\n}",
		"sse {\n\tbroker memory\n\tmemory 1MiB\n}\nsse {\n}",
		"sse {\n\tbroker redis rediss://u:p@h/1 {\n\t\tafter_restart go_on\n\t\ttls {\n\t\t\tca a\n\t\t\tcertificate b c\n\t\t}\n\t\tsentinel_auth x\n\t}\n}",
		"sse \"\" {\n\tlimits {}\n}", "sse {\n\tchannel {\n}", "sse_api {", "sse_api /", "sse_api *", "sse }", "sse {\n\tkeepalive\n\toff\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if strings.Contains(text, "import") {
			return // reads files
		}
		for _, caddyfile := range []string{"{\n" + text + "\n}\n", "http://localhost:1 {\n" + text + "\n}\n", text} {
			_, _ = caddytest.Adapt(caddyfile) // an error is fine
		}
	})
}
