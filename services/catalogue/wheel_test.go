package catalogue

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// archive zips one member with whatever header the test wants; packed are the stored or deflated bytes.
func archive(t *testing.T, header zip.FileHeader, packed []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	header.CompressedSize64 = uint64(len(packed))
	w, err := z.CreateRaw(&header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(packed); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func deflate(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileWheels(t *testing.T) {
	data := content(1000)
	crc := crc32.ChecksumIEEE(data)
	bomb := make([]byte, 1<<20)
	link := zip.FileHeader{Name: "m", UncompressedSize64: 1000, CRC32: crc}
	link.SetMode(fs.ModeSymlink | 0o777)
	good := archive(t, zip.FileHeader{Name: "m", UncompressedSize64: 1000, CRC32: crc}, data)
	twice, err := filepath.Abs(makeWheel(t, filepath.Join(t.TempDir(), "w"), "m", data, "m", data))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		wheel []byte
		path  string
		want  string // of the error; empty if there should be none
	}{
		"stored":            {wheel: good},
		"deflated":          {wheel: archive(t, zip.FileHeader{Name: "m", Method: zip.Deflate, UncompressedSize64: 1000, CRC32: crc}, deflate(t, data))},
		"empty":             {wheel: nil, want: "open the wheel"},
		"no zip":            {wheel: data, want: "open the wheel"},
		"cut off":           {wheel: good[:len(good)-10], want: "open the wheel"},
		"other member":      {wheel: archive(t, zip.FileHeader{Name: "../m"}, nil), want: "no file m"},
		"twice":             {path: twice, want: "twice"},
		"symbolic link":     {wheel: archive(t, link, data), want: "no file m"},
		"wrong checksum":    {wheel: archive(t, zip.FileHeader{Name: "m", UncompressedSize64: 1000, CRC32: crc + 1}, data), want: "checksum"},
		"unknown method":    {wheel: archive(t, zip.FileHeader{Name: "m", Method: 99, UncompressedSize64: 1000}, data), want: "algorithm"},
		"bad deflate":       {wheel: archive(t, zip.FileHeader{Name: "m", Method: zip.Deflate, UncompressedSize64: 1000}, data), want: "unpack m"},
		"claims too much":   {wheel: archive(t, zip.FileHeader{Name: "m", Method: zip.Deflate, UncompressedSize64: 1000, CRC32: crc}, deflate(t, data[:9])), want: "unpack m"},
		"claims too little": {wheel: archive(t, zip.FileHeader{Name: "m", Method: zip.Deflate, UncompressedSize64: 500}, deflate(t, bomb)), want: "unpack m"},
		"claims 2^64":       {wheel: archive(t, zip.FileHeader{Name: "m", Method: zip.Deflate, UncompressedSize64: 1<<64 - 2}, deflate(t, data)), want: "unpack m"},
	} {
		for _, size := range []int64{0, 1000} { // unknown and known
			dir := t.TempDir()
			want := wanted{size: size, sources: []source{webSource{}}}
			if size > 0 {
				want.sha256 = sumOf(data)
			}
			p, err := openPartial(t.Context(), filepath.Join(dir, "partial"), want, silent{})
			if err != nil {
				t.Fatal(err)
			}
			path := c.path
			if path == "" {
				path = write(t, filepath.Join(dir, "wheel.whl"), c.wheel)
			}
			err = unpack(t.Context(), path, "m", p)
			switch {
			case c.want == "" && (err != nil || p.digest() != sumOf(data)):
				t.Errorf("%s: %v, %d bytes", name, err, p.done)
			case c.want != "" && err == nil:
				t.Errorf("%s: no error", name)
			case c.want != "" && !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), "more than the expected"):
				t.Errorf("%s: %v", name, err)
			}
			if p.done > 1001 {
				t.Errorf("%s: %d bytes were written", name, p.done)
			}
			p.close(errors.New("not needed"))
		}
	}
}

func TestUnpackCancelled(t *testing.T) {
	data := content(1000)
	dir := t.TempDir()
	wheel := makeWheel(t, filepath.Join(dir, "wheel"), "m", data)
	p, err := openPartial(t.Context(), filepath.Join(dir, "partial"), wanted{}, silent{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := unpack(ctx, wheel, "m", p); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
