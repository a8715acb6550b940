// Command screenshot takes the picture of the dashboard that the documentation
// shows. The server and its feeder must be running (make run), for as long as
// the plots are to be filled: they show five minutes.
//
//	go run ./internal/screenshot -wait 5m -o docs/dashboard.png
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func main() {
	url := flag.String("url", "http://localhost:8080/", "`address` of the page")
	out := flag.String("o", "docs/dashboard.png", "`file` to write")
	wait := flag.Duration("wait", 0, "time to let the page collect figures")
	scheme := flag.String("scheme", "dark", "dark or light")
	flag.Parse()
	if err := shoot(*url, *out, *scheme, *wait); err != nil {
		fmt.Fprintln(os.Stderr, "screenshot:", err)
		os.Exit(1)
	}
}

func shoot(url, out, scheme string, wait time.Duration) error {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()

	const live = `document.querySelector("#status").dataset.state === "live" &&
		document.querySelector("#total-events").textContent > 8`
	err := chromedp.Do(ctx,
		chromedp.EmulateViewport(1440, 900, chromedp.EmulateScale(2)),
		preferScheme(scheme),
		chromedp.Navigate(url))
	if err != nil {
		return err
	}
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](live)); err != nil {
		return fmt.Errorf("the page does not come alive: %w", err)
	}
	time.Sleep(wait)
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	return write(out, picture)
}

func preferScheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// write stores the picture with a palette of its commonest colours, which is a
// third of the size and looks the same for a page of few colours.
func write(path string, picture []byte) error {
	full, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return err
	}
	small := image.NewPaletted(full.Bounds(), commonest(full, 256))
	draw.Draw(small, small.Bounds(), full, full.Bounds().Min, draw.Src)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(f, small); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func commonest(picture image.Image, most int) color.Palette {
	counts := make(map[color.Color]int)
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[picture.At(x, y)]++
		}
	}
	palette := color.Palette(slices.Collect(maps.Keys(counts)))
	slices.SortFunc(palette, func(a, b color.Color) int { return counts[b] - counts[a] })
	return palette[:min(len(palette), most)]
}
