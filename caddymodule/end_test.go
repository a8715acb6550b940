package caddymodule_test

import (
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestEnd promises that each way to say so ends a channel after the event, for
// which later publishes are refused with the channel and the position, while
// false and other channels go on.
func TestEnd(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	for _, tc := range []struct {
		name, path, body string
		header           []string
	}{
		{"query", "/publish/CH?end=true", "bye", nil},
		{"header", "/publish/CH", "bye", []string{"Sse-End: true"}},
		{"envelope", "/publish", `{"channel":"CH","data":"bye","end":true}`, []string{jsonCT}},
		{"envelope of several", "/publish", `{"channels":["CH","CH-too"],"data":"bye","end": true }`, []string{jsonCT}},
		{"array", "/publish", `[{"channel":"CH","data":"bye","end":true}]`, []string{jsonCT}},
		{"form", "/publish", `channel=CH&data=bye&end=true`, []string{form}},
		{"line", "/publish", `{"channel":"CH","data":"bye","end":true}`, []string{ndjsonCT}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := l.in(t)
			for _, door := range doors(l) {
				channel := strings.ReplaceAll(door.name+"/"+tc.name, " ", "-")
				fill := strings.NewReplacer("CH", channel, "true", "false")
				header := func(fill *strings.Replacer) (filled []string) {
					for _, h := range tc.header {
						filled = append(filled, fill.Replace(h))
					}
					return filled
				}
				s, _ := l.open("?channel=" + channel)
				got := l.do("POST", withQuery(door.base+fill.Replace(tc.path), door.query), fill.Replace(tc.body), header(fill)...)
				if got.StatusCode != 200 {
					t.Fatalf("with false: got %d %s", got.StatusCode, got.body)
				}
				expectData(t, s, "bye")
				fill = strings.NewReplacer("CH", channel)
				got = l.do("POST", withQuery(door.base+fill.Replace(tc.path), door.query), fill.Replace(tc.body), header(fill)...)
				if got.StatusCode != 200 {
					t.Fatalf("with true: got %d %s", got.StatusCode, got.body)
				}
				m := s.Expect("message")
				if m.Data != "bye" {
					t.Errorf("the last event is %+v", m)
				}
				expectEnded(t, l, door.base, door.query, channel, m.ID)
			}
		})
	}
	l.publish("another", "goes on")
}

// expectEnded checks that a channel has ended at a position: for publishers, who
// are told, and for those who look.
func expectEnded(t *testing.T, l *lab, base, query, channel, at string) {
	t.Helper()
	before := l.numbers("").Position
	p := l.do("POST", withQuery(base+"/publish/"+channel, query), "late").problem(t, 409, `"`+channel+`"`, at, "another name")
	if p.Field != "channel" || p.Index != nil {
		t.Errorf("got %+v", p)
	}
	p = l.do("POST", withQuery(base+"/publish", query), `[{"channel":"fresh"},{"channels":["fresh","`+channel+`"]},{"channel":"fresh"}]`, jsonCT).problem(t, 409, `"`+channel+`"`, at, "another name")
	if p.Field != "channel" || indexOf(p) != 1 {
		t.Errorf("got %+v", p)
	}
	if after := l.numbers("").Position; after != before {
		t.Errorf("something was published: %s after %s", after, before)
	}
	var c keptReply
	l.do("GET", withQuery(base+"/channels/"+channel, query), "").into(t, &c)
	if !c.Ended {
		t.Errorf("the channel is shown as %+v", c.channelReply)
	}
	var page channelsReply
	l.do("GET", withQuery(base+"/channels?limit=1&prefix="+channel, query), "").into(t, &page)
	if len(page.Channels) != 1 || !page.Channels[0].Ended {
		t.Errorf("the channel is listed as %+v", page.Channels)
	}
}

// TestEndRepeated promises that the publish which ended a channel can be
// repeated by its id like any other.
func TestEndRepeated(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	var first, again receipt
	l.do("POST", l.admin+"/sse/publish/a?end=true&id=1", "bye").into(t, &first)
	l.do("POST", l.admin+"/sse/publish/a?end=true&id=1", "bye").into(t, &again)
	if first.ID != again.ID {
		t.Errorf("got %s, then %s", first.ID, again.ID)
	}
	l.do("POST", l.admin+"/sse/publish/a?end=true&id=2", "bye").problem(t, 409)
}

// TestDelete promises that DELETE ends a channel, whether anybody has ever used
// it or not, tells its subscribers, and can be repeated.
func TestDelete(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	for _, door := range doors(l) {
		for _, name := range []string{"used", "never-used", "with/slash"} {
			channel := strings.ReplaceAll(door.name, " ", "-") + "/" + name
			if name != "never-used" {
				l.publish(channel, "before")
			}
			s, _ := l.open("?channel=" + channel + "&channel=open")
			var first, again receipt
			l.do("DELETE", withQuery(door.base+"/channels/"+channel, door.query), "").into(t, &first)
			if m := s.Next(); m.Event != "hub:end" || !strings.Contains(m.Data, channel) {
				t.Errorf("%s: got %+v, want hub:end", channel, m)
			}
			if first.Subscribers != 1 || first.ID != l.numbers("").Position {
				t.Errorf("%s: got %+v", channel, first)
			}
			l.publish("open", "goes on")
			expectData(t, s, "goes on")
			l.do("DELETE", withQuery(door.base+"/channels/"+channel, door.query), "").into(t, &again)
			if again != (receipt{ID: first.ID}) {
				t.Errorf("%s: repeated: got %+v after %+v", channel, again, first)
			}
			expectEnded(t, l, door.base, door.query, channel, first.ID.String())
			s.Close()
		}
	}
}

// TestDeleteAfterEnd promises the position of the last event to who deletes a
// channel that has ended.
func TestDeleteAfterEnd(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	var end, deleted receipt
	l.do("POST", l.admin+"/sse/publish/a?end=true", "bye").into(t, &end)
	l.publish("b", "x")
	l.do("DELETE", l.admin+"/sse/channels/a", "").into(t, &deleted)
	if deleted.ID != end.ID {
		t.Errorf("got %s, want %s", deleted.ID, end.ID)
	}
}

// TestDeleteAllow promises that only channels that may be published to can be
// ended, and only by who has the token.
func TestDeleteAllow(t *testing.T) {
	l := loadLab(t, "", "sse_api /sse* {\n\t\ttoken s3cret\n\t\tallow news*\n\t}")
	const token = "Authorization: Bearer s3cret"
	l.do("DELETE", l.site+"/sse/channels/news", "").problem(t, 401)
	p := l.do("DELETE", l.site+"/sse/channels/other", "", token).problem(t, 403, "allow")
	if p.Field != "channel" {
		t.Errorf("got field %q", p.Field)
	}
	if at := l.numbers("").Position; at.Seq != 0 {
		t.Errorf("something ended at %s", at)
	}
	var r receipt
	l.do("DELETE", l.site+"/sse/channels/news-1", "", token).into(t, &r)
	if r.ID == (sse.Position{}) {
		t.Errorf("got %+v", r)
	}
}

// TestDeleteCrossOrigin promises that a page of another origin cannot end
// channels through a door without a lock.
func TestDeleteCrossOrigin(t *testing.T) {
	l := loadLab(t, "", openAPI)
	l.do("DELETE", l.site+"/sse/channels/a", "", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site").problem(t, 403)
	if at := l.numbers("").Position; at.Seq != 0 {
		t.Errorf("something ended at %s", at)
	}
}
