package caddymodule_test

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

func (b *browser) click(selector string) {
	b.t.Helper()
	evaluate[bool](b, fmt.Sprintf("document.querySelector(%q).click(); true", selector))
}

func (b *browser) fill(selector, value string) {
	b.t.Helper()
	evaluate[bool](b, fmt.Sprintf("document.querySelector(%q).value = %q; true", selector, value))
}

// logIn uses the form of the chat's page.
func (b *browser) logIn(user, password string) {
	b.t.Helper()
	b.await(`!document.querySelector("#login").hidden`)
	b.click(fmt.Sprintf("#login [value=%s]", user))
	b.fill("#password", password)
	b.click("#login button")
}

func (b *browser) awaitPlaces(want string) {
	b.t.Helper()
	b.await(fmt.Sprintf(`[...document.querySelectorAll("#places button")].map(b => b.textContent).join(", ") === %q`, want))
}

func (b *browser) forgetCookies() {
	b.t.Helper()
	_, err := do(b, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.ClearBrowserCookies, cdp.Empty{})
		return err
	}))
	if err != nil {
		b.t.Fatal(err)
	}
}

// A user logs in by the form, hears what is meant for her, and answers. When her
// session ends or her rights change, the page follows.
func chatBrowser(s *teamChat) {
	page := openBrowser(s.t)
	page.open(s.site)
	page.awaitText("#status", "Logged out")
	page.logIn("alice", "banana")
	page.awaitText("#problem", "There is no such user, or the password is another.")
	page.logIn("alice", "apple")
	page.awaitText("#status", "Live")
	page.awaitText("#problem", "")
	page.awaitText("#user", "alice")
	page.awaitPlaces("# team, # project-x, # project-y, @ bob, @ carol, @ dave")

	bob := s.login("bob", "banana")
	stream, _ := s.listen(bob, "team")
	s.post("/say", bob, "to", "user-alice", "text", "Hi <b>Alice</b> & co")
	s.expectSaid(stream, "bob", "user-alice", "Hi <b>Alice</b> & co")
	page.await(`document.querySelector("[data-channel=user-bob]").dataset.unread === "1"`)
	page.click("[data-channel=user-bob]")
	page.awaitText("#messages li:last-child p", "Hi <b>Alice</b> & co")
	page.fill("#text", "Hi Bob")
	page.click("#say button")
	s.expectSaid(stream, "alice", "user-bob", "Hi Bob")
	page.awaitText("#messages li:last-child.mine p", "Hi Bob")
	page.reload() // shows what was said, once
	page.awaitText("#status", "Live")
	page.click("[data-channel=user-bob]")
	page.awaitText("#messages li:last-child.mine p", "Hi Bob")
	page.await(`[...document.querySelectorAll("#messages p")].filter(p => p.textContent === "Hi Bob").length === 1`)

	// The session ends while Caddy is away. The stream is answered 401 when it
	// comes back, which an EventSource does not tell.
	if err := s.process.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	page.awaitText("#status", "Reconnecting…")
	page.forgetCookies()
	s.run()
	page.awaitText("#status", "Logged out")
	page.awaitText("#problem", "Nobody is logged in.")

	// Both tabs go with the session.
	page.logIn("bob", "banana")
	page.awaitPlaces("# team, # project-x, @ alice, @ carol, @ dave")
	other := page.tab()
	other.open(s.site)
	other.awaitText("#user", "bob")
	alice := s.login("alice", "apple")
	page.click("[data-channel=project-x]")
	s.member(alice, "bob", "project-x", false)
	for _, tab := range []*browser{page, other} {
		tab.awaitPlaces("# team, @ alice, @ carol, @ dave")
		tab.awaitText("#status", "Live")
		tab.awaitText("#place", "# team")
	}
	s.member(alice, "bob", "project-x", true)
	page.awaitPlaces("# team, # project-x, @ alice, @ carol, @ dave")
	page.awaitText("#status", "Live")
	other.awaitPlaces("# team, # project-x, @ alice, @ carol, @ dave")
	other.awaitText("#status", "Live")
	page.click("#logout")
	page.awaitText("#status", "Logged out")
	page.awaitText("#problem", "")
	other.awaitText("#status", "Logged out")
	other.awaitText("#problem", "Nobody is logged in.")
}

// The page of who leads puts people into projects.
func chatLead(s *teamChat) {
	page := openBrowser(s.t)
	page.open(s.site)
	page.logIn("alice", "apple")
	page.awaitText("#status", "Live")
	page.click("[data-channel=project-y]")
	page.click("#members [data-name=dave]")
	page.await(`document.querySelector("#members [data-name=dave]").ariaPressed === "true"`)
	s.listen(s.login("dave", "date"), "project-y")
	page.click("#members [data-name=dave]")
	page.await(`document.querySelector("#members [data-name=dave]").ariaPressed === "false"`)
	s.do("GET", s.site+"/events?channel=project-y", "", s.login("dave", "date")).problem(s.t, 403)
}
