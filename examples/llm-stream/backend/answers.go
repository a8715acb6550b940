package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// maxQuestion is the most characters of a question.
	maxQuestion = 300
	// maxBody is more than any form with such a question takes.
	maxBody = 16 << 10
	// endTimeout is for how long ending a stopped answer is attempted. A
	// program that stops waits no longer.
	endTimeout = 5 * time.Second
)

// answers are those that are being written.
type answers struct {
	ctx     context.Context // all are stopped when it ends
	hub     *hub
	pace    time.Duration
	running sync.WaitGroup

	mu    sync.Mutex
	stops map[string]context.CancelFunc // by the answer's id
}

func newAnswers(ctx context.Context, h *hub, pace time.Duration) *answers {
	return &answers{ctx: ctx, hub: h, pace: pace, stops: make(map[string]context.CancelFunc)}
}

func (a *answers) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ask", a.ask)
	mux.HandleFunc("POST /stop", a.stop)
	return mux
}

// wait returns when none is being written any more.
func (a *answers) wait() { a.running.Wait() }

// ask begins an answer and tells its id, before the first word exists.
func (a *answers) ask(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	question := strings.ToValidUTF8(r.PostFormValue("question"), "\uFFFD")
	question = strings.Join(strings.Fields(question), " ")
	if question == "" || utf8.RuneCountInString(question) > maxQuestion {
		http.Error(w, fmt.Sprintf("a question has 1 to %d characters", maxQuestion), http.StatusBadRequest)
		return
	}
	// Whoever knows the id can read the answer, so nobody may guess it.
	id := rand.Text()
	a.begin(id, question) //nolint:contextcheck // the answer outlives the request
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"answer": id}) // the client may be gone
}

// stop stops an answer. What is stopped is one of ours, never another channel.
func (a *answers) stop(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	a.mu.Lock()
	stop := a.stops[r.PostFormValue("answer")]
	a.mu.Unlock()
	if stop == nil {
		http.Error(w, "no such answer is being written", http.StatusNotFound)
		return
	}
	stop()
	w.WriteHeader(http.StatusNoContent)
}

func (a *answers) begin(id, question string) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.mu.Lock()
	a.stops[id] = cancel
	a.mu.Unlock()
	a.running.Go(func() {
		defer a.forget(id)
		channel := "answer-" + id
		err := a.write(ctx, channel, question)
		if err == nil {
			return
		}
		if ctx.Err() == nil { // nobody stopped it
			slog.Error("cannot publish", "error", err)
		}
		a.abandon(ctx, channel)
	})
}

func (a *answers) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stops[id]() // releases what the context holds
	delete(a.stops, id)
}

// write publishes the question, so that a page which is reloaded can show it,
// then the answer word by word, and then that it is complete. That last event
// ends the channel: nobody knows beforehand which word of a language model is
// the last.
func (a *answers) write(ctx context.Context, channel, question string) error {
	err := a.hub.publish(ctx, channel, event{id: channel + "-question", name: "question", data: question})
	if err != nil {
		return err
	}
	words := split(answer(question))
	for i, word := range words {
		if !sleep(ctx, a.pace/2+mathrand.N(a.pace)) {
			return ctx.Err()
		}
		err := a.hub.publish(ctx, channel, event{id: channel + "-" + strconv.Itoa(i), data: word})
		if err != nil {
			return err
		}
	}
	return a.hub.publish(ctx, channel, event{
		id: channel + "-done", name: "done", data: strconv.Itoa(len(words)), last: true,
	})
}

// abandon ends the channel of an answer that stays incomplete, so that nobody
// waits for the rest.
func (a *answers) abandon(ctx context.Context, channel string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := a.hub.end(ctx, channel); err != nil {
		slog.Error("cannot end the channel of a stopped answer", "error", err)
	}
}
