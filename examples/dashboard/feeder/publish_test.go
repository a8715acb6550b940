package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestPublishSendsOneArray(t *testing.T) {
	var body, contentType, authorization string
	hub := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		contentType, authorization = r.Header.Get("Content-Type"), r.Header.Get("Authorization")
	}))
	defer hub.Close()

	p := &publisher{client: hub.Client(), url: hub.URL, token: "secret"}
	err := p.publish(t.Context(), []envelope{
		{Channel: "metrics-disk", Event: "disk", Data: diskFigures{Time: 1, Read: new(int64(0))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"channel":"metrics-disk","event":"disk","data":{"time":1,"read":0}}]`; body != want {
		t.Errorf("body = %s, want %s", body, want)
	}
	if contentType != "application/json" {
		t.Errorf("Content-Type = %q", contentType)
	}
	if authorization != "Bearer secret" {
		t.Errorf("Authorization = %q", authorization)
	}
}

func TestPublishRefused(t *testing.T) {
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"detail":"slow down"}`)
	}))
	defer hub.Close()

	p := &publisher{client: hub.Client(), url: hub.URL}
	err := p.publish(t.Context(), []envelope{{Channel: "c", Event: "e", Data: 1}})

	var refused *refusal
	if !errors.As(err, &refused) {
		t.Fatalf("publish = %v, want a refusal", err)
	}
	if want := "status 429 Too Many Requests: slow down"; refused.Error() != want {
		t.Errorf("error = %q, want %q", refused, want)
	}
	if refused.retryAfter != 30*time.Second {
		t.Errorf("retry after %v, want 30s", refused.retryAfter)
	}
}

func TestNextWait(t *testing.T) {
	failed := errors.New("connection refused")
	tests := []struct {
		name           string
		interval, last time.Duration
		err            error
		want           time.Duration
	}{
		{"success", time.Second, 8 * time.Second, nil, time.Second},
		{"failure doubles", time.Second, 2 * time.Second, failed, 4 * time.Second},
		{"up to a limit", time.Second, 8 * time.Second, failed, maxBackoff},
		{"never under the interval", time.Minute, time.Minute, failed, time.Minute},
		{"the hub asks for more", time.Second, time.Second, &refusal{retryAfter: time.Minute}, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nextWait(tt.interval, tt.last, tt.err); got != tt.want {
				t.Errorf("nextWait = %v, want %v", got, tt.want)
			}
		})
	}
}
