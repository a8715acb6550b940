package main

import (
	"fmt"
	"regexp"
)

// canned is what a language model would write.
const canned = `You asked: “%s”

I am no language model, only a small program with a canned text. But my words come as a model’s would: one at a time, each published to Caddy by an HTTP request. If that fails, it is sent again with the same id, and still no word comes twice.

Do disturb me:
  • Reload the page. It begins at the first word again and goes on live.
  • Cut the network. Your browser comes back by itself and misses nothing.
  • Open this address in a second tab. Both show the same.

Grüße aus Köln, καλημέρα κόσμε, 日本語: all of it arrives as it was sent. With my last word the channel ends, and so does your stream. Voilà!`

// answer returns the answer to a question.
func answer(question string) string { return fmt.Sprintf(canned, question) }

var wordAndSpace = regexp.MustCompile(`\s*\S+\s*`)

// split returns the words of a text, each with the white space behind it, so
// that they make the text again when they are put together.
func split(text string) []string { return wordAndSpace.FindAllString(text, -1) }
