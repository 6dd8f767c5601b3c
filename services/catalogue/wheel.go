package catalogue

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
)

// unpack appends one file of a wheel, which is a zip archive, to p. The archive's checksum of the file is verified.
func unpack(ctx context.Context, wheel, member string, p *partial) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open the wheel: %w", err)
	}
	defer archive.Close()
	var found *zip.File
	for _, file := range archive.File {
		if file.Name != member {
			continue
		}
		if found != nil {
			return fmt.Errorf("the wheel has %s twice", member)
		}
		found = file
	}
	if found == nil || !found.Mode().IsRegular() {
		return fmt.Errorf("the wheel has no file %s", member)
	}
	// A few bytes of archive can unpack to very many, so what the archive claims is the limit.
	claimed := found.UncompressedSize64
	if p.total > 0 && claimed > uint64(p.total-p.done) {
		return fmt.Errorf("%s has %d bytes, more than the expected %d", member, claimed, p.total-p.done)
	}
	content, err := found.Open()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", member, err)
	}
	defer content.Close()
	limited := &io.LimitedReader{R: contextReader{ctx, content}, N: int64(min(claimed, 1<<62)) + 1}
	written, err := io.CopyBuffer(p, limited, make([]byte, 256<<10))
	if err == nil && uint64(written) != claimed {
		err = fmt.Errorf("it has other than the claimed %d bytes", claimed)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", member, err)
	}
	return nil
}
