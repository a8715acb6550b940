package sse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse"
)

func manyChannels(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("c", i))
	}
	return names
}

// TestEventValidate holds that only what the wire can carry is published, and
// that the error names the field and what to mend.
func TestEventValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		event  sse.Event
		field  string // empty if valid
		reason string // part of it
	}{
		{"least", sse.Event{Channels: []string{"a"}}, "", ""},
		{"all fields", sse.Event{Channels: []string{"a", "b"}, Name: "n", Data: "d\r\n", Retry: time.Second}, "", ""},
		{"no channel", sse.Event{}, "channels", "at least one"},
		{"most channels", sse.Event{Channels: manyChannels(sse.MaxEventChannels)}, "", ""},
		{"too many channels", sse.Event{Channels: manyChannels(sse.MaxEventChannels + 1)}, "channels", "100 channels at most, not 101"},
		{"channel twice", sse.Event{Channels: []string{"a", "b", "a"}}, "channels", `"a" is named twice`},
		{"channel is a pattern", sse.Event{Channels: []string{"a*"}}, "channel", `'*'`},
		{"second channel bad", sse.Event{Channels: []string{"a", "b c"}}, "channels", `"b c"`},
		{"longest name", sse.Event{Channels: []string{"a"}, Name: strings.Repeat("n", sse.MaxName)}, "", ""},
		{"name too long", sse.Event{Channels: []string{"a"}, Name: strings.Repeat("n", sse.MaxName+1)}, "event", "255 bytes at most, not 256"},
		{"name with spaces", sse.Event{Channels: []string{"a"}, Name: " a: b "}, "", ""},
		{"name with LF", sse.Event{Channels: []string{"a"}, Name: "a\nb"}, "event", "LF"},
		{"name with CR", sse.Event{Channels: []string{"a"}, Name: "a\rb"}, "event", "CR"},
		{"name with NUL", sse.Event{Channels: []string{"a"}, Name: "a\x00"}, "event", "NUL"},
		{"name not UTF-8", sse.Event{Channels: []string{"a"}, Name: "\xff"}, "event", "UTF-8"},
		{"the hub's name", sse.Event{Channels: []string{"a"}, Name: "hub:open"}, "event", `"hub:"`},
		{"nearly the hub's name", sse.Event{Channels: []string{"a"}, Name: "hub"}, "", ""},
		{"data not UTF-8", sse.Event{Channels: []string{"a"}, Data: "a\xc3"}, "data", "base64"},
		{"data with NUL", sse.Event{Channels: []string{"a"}, Data: "a\x00b"}, "", ""},
		{"retry negative", sse.Event{Channels: []string{"a"}, Retry: -time.Millisecond}, "retry", "from 0"},
		{"retry longest", sse.Event{Channels: []string{"a"}, Retry: sse.MaxRetry}, "", ""},
		{"retry too long", sse.Event{Channels: []string{"a"}, Retry: sse.MaxRetry + time.Millisecond}, "retry", "86400000"},
		{"retry not whole", sse.Event{Channels: []string{"a"}, Retry: time.Microsecond}, "retry", "whole milliseconds"},
		{"the first wrong field counts", sse.Event{Name: "\n", Data: "\xff"}, "channels", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.event.Validate()
			var field *sse.FieldError
			switch {
			case tc.field == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.field == "":
			case !errors.As(err, &field) || field.Field != tc.field || !strings.Contains(field.Reason, tc.reason):
				t.Errorf("got %v, want %s: …%s…", err, tc.field, tc.reason)
			case !strings.HasPrefix(err.Error(), tc.field+": "):
				t.Errorf("the message %q does not name the field", err)
			}
		})
	}
}

// TestAppendEvent holds the wire's bytes.
func TestAppendEvent(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event sse.Event
		want  string // after the id
	}{
		{"data", sse.Event{Data: "x"}, "data: x\n\n"},
		{"empty data", sse.Event{}, "data: \n\n"},
		{"all fields in order", sse.Event{Name: "n", Data: "x", Retry: 1500 * time.Millisecond}, "retry: 1500\nevent: n\ndata: x\n\n"},
		{"LF", sse.Event{Data: "a\nb"}, "data: a\ndata: b\n\n"},
		{"CR", sse.Event{Data: "a\rb"}, "data: a\ndata: b\n\n"},
		{"CRLF", sse.Event{Data: "a\r\nb"}, "data: a\ndata: b\n\n"},
		{"LF CR", sse.Event{Data: "a\n\rb"}, "data: a\ndata: \ndata: b\n\n"},
		{"CR CRLF", sse.Event{Data: "a\r\r\nb"}, "data: a\ndata: \ndata: b\n\n"},
		{"LF at the end", sse.Event{Data: "a\n"}, "data: a\ndata: \n\n"},
		{"CR at the end", sse.Event{Data: "a\r"}, "data: a\ndata: \n\n"},
		{"CRLF at the end", sse.Event{Data: "a\r\n"}, "data: a\ndata: \n\n"},
		{"only LF", sse.Event{Data: "\n"}, "data: \ndata: \n\n"},
		{"injected", sse.Event{Data: "a\rid: 7\r\revent: x"}, "data: a\ndata: id: 7\ndata: \ndata: event: x\n\n"},
		{"leading space", sse.Event{Data: " a"}, "data:  a\n\n"},
		{"no line end: NEL, LS", sse.Event{Data: "a\u0085b\u2028c"}, "data: a\u0085b\u2028c\n\n"},
		{"channels are not told", sse.Event{Channels: []string{"secret"}, Data: "a"}, "data: a\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := string(sse.AppendEvent([]byte("before"), sse.Position{Epoch: "e", Seq: 12}, &tc.event))
			if want := "beforeid: e.12\n" + tc.want; got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// FuzzEncode holds that a reader gets exactly what was published, with one line
// end for all three, and that neither data nor a name makes fields or events.
func FuzzEncode(f *testing.F) {
	f.Add("", "", uint32(0), uint64(1))
	f.Add("n", "a\r\nb\rc\nd\n", uint32(3000), uint64(1842))
	f.Add(" n: ", "\r\n\r\nid: 9.9\n\n\nevent: hub:close\ndata: x\n\n", uint32(1), uint64(0))
	f.Add("id", "\ufeffdata\x00:", uint32(86400000), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, name, data string, retry uint32, seq uint64) {
		e := sse.Event{Channels: []string{"a"}, Name: name, Data: data, Retry: time.Duration(retry) * time.Millisecond}
		if e.Validate() != nil {
			return
		}
		at := sse.Position{Epoch: "e", Seq: seq}
		second := sse.Event{Channels: []string{"a"}, Data: "second"}
		frames := sse.AppendEvent(sse.AppendEvent(nil, at, &e), sse.Position{Epoch: "f", Seq: 1}, &second)

		decoder := sse.NewDecoder(bytes.NewReader(frames))
		decoder.OnComment(func(text string) { t.Errorf("a comment: %q", text) })
		got, err := decoder.Decode()
		if err != nil {
			t.Fatalf("Decode: %v", err)
		}
		want := sse.Message{ID: at.String(), Event: name, Data: strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)}
		if name == "" {
			want.Event = "message"
		}
		if got != want {
			t.Errorf("got  %q\nwant %q\nfrom %q", got, want, frames)
		}
		if got, told := decoder.Retry(); got != e.Retry || told != (retry > 0) {
			t.Errorf("retry is %v %v, want %v", got, told, e.Retry)
		}
		if got, err := decoder.Decode(); err != nil || got != (sse.Message{ID: "f.1", Event: "message", Data: "second"}) {
			t.Errorf("then %q, %v", got, err)
		}
		if got, err := decoder.Decode(); err != io.EOF {
			t.Errorf("then %q, %v, want the end", got, err)
		}
		if !utf8.Valid(frames) {
			t.Errorf("not UTF-8: %q", frames)
		}
	})
}
