package caddymodule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

type channelReply struct {
	Channel     string       `json:"channel"`
	Subscribers int          `json:"subscribers"`
	Events      int          `json:"events"`
	Bytes       int          `json:"bytes"`
	Last        sse.Position `json:"last"`
	Ended       bool         `json:"ended"`
}

type channelsReply struct {
	Channels []channelReply `json:"channels"`
	Next     string         `json:"next"`
}

type keptReply struct {
	channelReply
	Kept []struct {
		ID    sse.Position `json:"id"`
		Event string       `json:"event"`
		Data  string       `json:"data"`
		Time  time.Time    `json:"time"`
	} `json:"kept"`
}

// TestNumbers promises the hub's numbers after known traffic.
func TestNumbers(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	s, _ := l.open("?channel=a&channel=p-*")
	two, _ := l.open("?channel=b")
	l.publish("a", "1")
	l.publish("p-1", "2")
	last := l.publish("unheard", "3")
	expectData(t, s, "1", "2")
	two.Close()
	eventually(t, "the stream is gone", func() bool { return l.numbers("").Streams == 1 })
	l.open("?channel=a&channel=b", "Last-Event-ID: garbage")
	for _, door := range doors(l) {
		var n numbersReply
		got := l.do("GET", withQuery(door.base, door.query), "")
		got.into(t, &n)
		if n.Hub != "default" || n.Position != last.ID || n.Streams != 2 || n.Patterns != 1 || n.Published != 3 || n.Delivered != 2 {
			t.Errorf("%s: got %+v", door.name, n)
		}
		if n.KeptBytes <= 0 || n.Channels != 4 || n.Closed["client"] != 1 || n.Resets["unknown"] != 2 {
			t.Errorf("%s: got %+v", door.name, n)
		}
		if got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q", door.name, got.Header.Get("Cache-Control"))
		}
		if head := l.do("HEAD", withQuery(door.base, door.query), ""); head.StatusCode != 200 || head.body != "" {
			t.Errorf("%s: HEAD: got %d %q", door.name, head.StatusCode, head.body)
		}
	}
}

// TestChannels promises the list of channels, in pages that lose and repeat
// nothing.
func TestChannels(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("c-%02d", i)
		want = append(want, name)
		l.publish(name, "x")
	}
	l.publish("é/ü", "x")
	l.open("?channel=c-00&channel=quiet")
	l.open("?channel=c-*")
	want = append(want, "quiet", "é/ü")

	for _, limit := range []string{"", "1", "5", "27", "26", "1000"} {
		var got []string
		after, pages := "", 0
		for {
			var page channelsReply
			l.do("GET", l.admin+"/sse/channels?limit="+limit+"&after="+escape(after), "").into(t, &page)
			for _, c := range page.Channels {
				got = append(got, c.Channel)
			}
			if pages++; page.Next == "" || pages > 100 {
				break
			}
			after = page.Next
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %q: got %q in %d pages, want %q", limit, got, pages, want)
		}
	}

	var page channelsReply
	l.do("GET", l.site+"/sse/channels?prefix=c-0&limit=2", "").into(t, &page)
	if len(page.Channels) != 2 || page.Next != "c-01" {
		t.Fatalf("got %+v", page)
	}
	if c := page.Channels[0]; c.Channel != "c-00" || c.Subscribers != 2 || c.Events != 1 || c.Bytes <= 0 || c.Last.Seq != 1 {
		t.Errorf("got %+v", c)
	}
	if c := page.Channels[1]; c.Subscribers != 1 || c.Last.Seq != 2 {
		t.Errorf("got %+v", c)
	}
	got := l.do("GET", l.site+"/sse/channels?prefix=nothing", "")
	if strings.TrimSpace(got.body) != `{"channels":[]}` {
		t.Errorf("got %s", got.body)
	}
	l.do("GET", l.site+"/sse/channels?after=quiet", "").into(t, &page)
}

// TestChannel promises a channel with its newest kept events, the oldest first.
func TestChannel(t *testing.T) {
	l := loadLab(t, "sse {\n\t\thistory 4 1h\n\t}", anyChannel+"\n\t"+openAPI)
	began := time.Now().Add(-time.Second)
	for i := range 5 {
		l.publish("a/b", fmt.Sprintf("line %d\nmore", i))
	}
	var last receipt
	l.do("POST", l.site+"/sse/publish/a/b?event=named", "").into(t, &last)
	l.open("?channel=a/b")
	l.open("?channel=quiet")
	for _, door := range doors(l) {
		var c keptReply
		l.do("GET", withQuery(door.base+"/channels/a/b", door.query), "").into(t, &c)
		if c.Channel != "a/b" || c.Subscribers != 1 || c.Events != 4 || c.Last != last.ID || len(c.Kept) != 4 {
			t.Fatalf("%s: got %+v", door.name, c)
		}
		if k := c.Kept[0]; k.ID.Seq != 3 || k.Event != "message" || k.Data != "line 2\nmore" || k.Time.Before(began) || k.Time.After(time.Now()) {
			t.Errorf("%s: got %+v", door.name, k)
		}
		if k := c.Kept[3]; k.ID != last.ID || k.Event != "named" || k.Data != "" {
			t.Errorf("%s: got %+v", door.name, k)
		}
		l.do("GET", withQuery(door.base+"/channels/a%2Fb?limit=1", door.query), "").into(t, &c)
		if len(c.Kept) != 1 || c.Kept[0].ID != last.ID || c.Events != 4 {
			t.Errorf("%s: with a limit: got %+v", door.name, c)
		}
		l.do("GET", withQuery(door.base+"/channels/quiet", door.query), "").into(t, &c)
		if c.Subscribers != 1 || c.Events != 0 || c.Last.Seq != 0 || len(c.Kept) != 0 {
			t.Errorf("%s: without events: got %+v", door.name, c)
		}
	}
}

// TestInspectRefusals promises that what cannot be asked is refused, and not
// taken for something else.
func TestInspectRefusals(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	for _, tc := range []struct {
		name, path string
		status     int
		field      string
		detail     string
	}{
		{"no such channel", "/channels/nosuch", 404, "", `"nosuch"`},
		{"channel empty", "/channels/", 400, "channel", "empty"},
		{"channel a pattern", "/channels/a*", 400, "channel", "'*'"},
		{"channel not UTF-8", "/channels/%ff", 400, "channel", "UTF-8"},
		{"limit zero", "/channels?limit=0", 400, "limit", "1000"},
		{"limit negative", "/channels?limit=-1", 400, "limit", "1000"},
		{"limit too much", "/channels?limit=1001", 400, "limit", "1000"},
		{"limit a word", "/channels?limit=all", 400, "limit", "1000"},
		{"limit twice", "/channels?limit=1&limit=2", 400, "limit", "2 times"},
		{"limit of a channel", "/channels/a?limit=0", 400, "limit", "1000"},
		{"unknown parameter", "/channels?perfix=a", 400, "perfix", "prefix"},
		{"unknown parameter of a channel", "/channels/a?after=x", 400, "after", "limit"},
		{"unknown parameter of the numbers", "?hubb=x", 400, "hubb", ""},
		{"unknown parameter of health", "/health?hubb=x", 400, "hubb", ""},
		{"malformed query", "/channels?limit=%zz", 400, "", "query"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, door := range doors(l) {
				p := l.do("GET", withQuery(door.base+tc.path, door.query), "").problem(t, tc.status, tc.detail)
				if p.Status != 0 && p.Field != tc.field {
					t.Errorf("%s: got field %q, want %q", door.name, p.Field, tc.field)
				}
			}
		})
	}
	// The endpoint of one hub has no choice of hubs.
	l.do("GET", l.site+"/sse/channels?hub=default", "").problem(t, 400, "hub")
}

// TestHealth promises 200 from a hub that works.
func TestHealth(t *testing.T) {
	l := loadLab(t, "sse stocks", anyChannel+"\n\t"+openAPI)
	for _, door := range append(doors(l), struct{ name, base, query string }{"stocks", l.admin + "/sse", "hub=stocks"}) {
		got := l.do("GET", withQuery(door.base+"/health", door.query), "")
		if got.StatusCode != 200 || strings.TrimSpace(got.body) != `{"status":"ok"}` {
			t.Errorf("%s: got %d %s", door.name, got.StatusCode, got.body)
		}
	}
}
