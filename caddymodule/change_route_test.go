package caddymodule_test

import (
	"slices"
	"testing"
)

// TestChangeByAnotherRoute holds a bug: a stream of one route was given a channel by
// way of another, the only one that allowed it. A reload took the right away there,
// but looked at the streams that were opened there alone, so that this one went on
// getting the channel.
func TestChangeByAnotherRoute(t *testing.T) {
	l := loadLab(t, "", endpoint("allow news")+"\n\tsse /staff* {\n\t\tallow secret\n\t}")
	of := "?connection=" + aliceID
	s, _ := l.open("?channel=news&connection=" + aliceID)
	l.do("POST", l.site+"/staff/subscribe/secret"+of, "").problem(t, 404, "by another route")
	l.do("POST", l.site+"/staff"+of, `{"unsubscribe":["news"]}`, jsonType).problem(t, 404)
	if r := l.publish("secret", "for the staff"); r.Subscribers != 0 {
		t.Errorf("the other route changed the stream: %+v", r)
	}
	s.Close()
	eventually(t, "the stream has ended", func() bool { return l.numbers("").Streams == 0 })

	l.change("/staff/subscribe/secret"+of, "", []string{"news", "secret"}) // no route's at the moment
	s, open := l.open("?channel=news&connection="+aliceID, "Last-Event-ID: "+s.LastEventID())
	if !slices.Equal(open.Channels, []string{"news"}) {
		t.Errorf("where it is not allowed, it came back to %+v", open)
	}
	s.Close()
}
