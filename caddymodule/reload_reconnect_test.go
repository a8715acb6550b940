package caddymodule_test

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestReloadReconnect holds a bug: a reload no longer allowed one of a stream's
// channels and ended it. Its EventSource reconnected with the URL of the first time,
// which named that channel too, and was answered 403, upon which it gave up for good:
// also on the channels that it might still have.
func TestReloadReconnect(t *testing.T) {
	for _, query := range []string{"?channel=news&channel=other", "?channel=news&channel=other&connection=" + aliceID} {
		t.Run(query, func(t *testing.T) {
			l := loadLab(t, "", endpoint("allow news other"))
			s, _ := l.open(query)
			l.publish("news", "one")
			expectData(t, s, "one")
			l.load("", endpoint("allow news"))
			expectClosed(t, s, "expired")
			l.publish("news", "two")
			again, open := l.open(query, "Last-Event-ID: "+s.LastEventID())
			if !slices.Equal(open.Channels, []string{"news"}) || open.Resume != "complete" {
				t.Errorf("came back to %+v", open)
			}
			expectData(t, again, "two")
			l.do("GET", l.site+"/events?channel=news&channel=other", "").problem(t, 403, `"other"`)
		})
	}
}

// TestReconnectRefused promises what a client that comes back is refused for even
// so: that nothing is left of what it asked for, that a name is malformed, and that
// it lacks a token, of which its page has to get another.
func TestReconnectRefused(t *testing.T) {
	l := loadLab(t, "", endpoint("allow news", jwtOption()))
	token := bearing(hs256(t, fmt.Sprintf(`{"channels":["team"],"exp":%d}`, in(time.Hour))))
	s, _ := l.open("?channel=news&channel=team", token)
	back := "Last-Event-ID: " + s.LastEventID()
	if _, open := l.open("?channel=news&channel=other", token, back); !slices.Equal(open.Channels, []string{"news"}) {
		t.Errorf("came back to %+v", open)
	}
	l.do("GET", l.site+"/events?channel=other", "", token, back).problem(t, 403, `"other"`)
	l.do("GET", l.site+"/events?channel=other&connection="+aliceID, "", token, back).problem(t, 403, `"other"`)
	l.do("GET", l.site+"/events?channel=news&channel=a*b", "", token, back).problem(t, 400, "*")
	l.do("GET", l.site+"/events?channel=news&channel=team", "", back).problem(t, 401, `"team"`)
}

// TestReconnectToChanged promises that what a client has changed its channels to is
// not lost with those that its URL names, if it may have none of them any more.
func TestReconnectToChanged(t *testing.T) {
	const query = "?channel=other&connection=" + aliceID
	l := loadLab(t, "", endpoint("allow news other"))
	s, _ := l.open(query)
	l.change("/events?connection="+aliceID, `{"subscribe":["news"],"unsubscribe":["other"]}`, []string{"news"})
	expectChannels(t, s, `["news"]`)
	l.load("", endpoint("allow news"))
	l.publish("news", "after")
	expectData(t, s, "after")
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })
	if _, open := l.open(query, "Last-Event-ID: "+s.LastEventID()); !slices.Equal(open.Channels, []string{"news"}) {
		t.Errorf("came back to %+v", open)
	}
}
