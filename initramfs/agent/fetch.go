package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/trust"
)

// codeEnded is the appliance's word for a job that was cancelled meanwhile.
const codeEnded = "job-ended"

// fetchTimeout bounds one attempt to fetch a layer: the longest, of 64 MiB, at a hundredth of a slow link.
const fetchTimeout = 10 * time.Minute

// fetchManifest fetches the manifest and checks that it is the one that the job names, signed by the site, and gives the
// swarm that the job names.
func (d *deployment) fetchManifest(ctx context.Context) error {
	var raw, signature []byte
	err := d.a.retry(ctx, "send the manifest", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		header, b, _, err := d.a.client.do(ctx, http.MethodGet, job.PathManifest+d.j.Image.String(), "", nil, images.MaxManifestLength)
		if err != nil {
			return err
		}
		raw = b
		signature, err = base64.StdEncoding.DecodeString(header.Get(job.SignatureHeader))
		return err
	})
	if err != nil {
		return d.imageFailure(err)
	}
	if d.manifest, err = trust.Manifest(raw, signature, d.a.siteKey, d.j.Image, d.j.InfoHash); err != nil {
		return d.imageFailure(err)
	}
	return nil
}

// fetchLayer returns a function that fetches a layer by its digest, and counts it as what came from the appliance. The
// caller checks it. Without the layers a machine cannot take part in the swarm, so they come by themselves.
func (d *deployment) fetchLayer(ctx context.Context) func(images.Ref) ([]byte, error) {
	return func(r images.Ref) (b []byte, err error) {
		err = d.a.retry(ctx, "send a layer of the image", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
			defer cancel()
			_, b, _, err = d.a.client.do(ctx, http.MethodGet, job.PathLayer+r.Digest.String(), "", nil, r.Length)
			return err
		})
		d.mu.Lock()
		defer d.mu.Unlock()
		d.status.past.FromAppliance += int64(len(b))
		return b, err
	}
}

// canonical is the encoding of OldFrame (RFC 8949 §4.2.1).
var canonical = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // options are constants
	}
	return mode
}()

// sendFrame returns when the appliance holds the old frame durably.
func (d *deployment) sendFrame(ctx context.Context, regions []job.OldFrameRegion) error {
	d.mu.Lock()
	chosen := d.status.disk
	d.mu.Unlock()
	body, err := canonical.Marshal(job.OldFrame{Job: d.j.ID, Disk: chosen.Name, DiskSerial: chosen.Serial, DiskLength: d.dev.Length, Regions: regions})
	if err != nil {
		return err
	}
	err = d.a.retry(ctx, "keep the old partition table", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		_, _, _, err := d.a.client.do(ctx, http.MethodPost, job.PathFrame, "application/cbor", body, maxAnswer)
		return err
	})
	if p := refused(err); p != nil {
		if p.Code == codeEnded {
			return d.ended("is over: "+p.Error(), err)
		}
		return &Failure{Code: "frame-refused", Sentence: "the appliance does not keep the old partition table of disk " + chosen.Name +
			": " + p.Error() + ". Nothing was written", Err: err}
	}
	return err
}

// accomplished says for people what a job has come to, of each kind.
var accomplished = map[job.Kind]string{job.Deploy: "the disk is written and right", job.RepairDisk: "the disk is repaired and right", job.VerifyDisk: "the disk is right",
	job.WipeDisk: "the disk is wiped", job.InventoryOf: "the machine has told what it is"}

// receipt signs what was proven, has the appliance countersign it and checks that. It completes r.
func (d *deployment) receipt(ctx context.Context, r job.Receipt) error {
	d.mu.Lock()
	chosen := d.status.disk
	d.mu.Unlock()
	r.Job, r.Machine, r.Image, r.DiskSerial, r.At = d.j.ID, d.j.Machine, d.j.Image, chosen.Serial, time.Now().UTC()
	if d.j.Kind != job.Deploy {
		r.Kind = d.j.Kind
	}
	if d.dev != nil {
		r.DiskLength = d.dev.Length
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	sum := images.Sum(raw)
	signature, err := ecdsa.SignASN1(rand.Reader, d.a.client.key, sum[:])
	if err != nil {
		return fmt.Errorf("sign the receipt: %w", err)
	}
	var answer job.Countersigned
	err = d.a.retry(ctx, "take the receipt", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, err := d.a.client.post(ctx, job.PathReceipt, job.SignedReceipt{Receipt: raw, Signature: signature, Final: d.snapshot()}, &answer)
		return err
	})
	if p := refused(err); p != nil {
		if p.Code == codeEnded {
			return d.ended("is over: "+p.Error(), err)
		}
		return &Failure{Code: "receipt-refused", Sentence: accomplished[d.j.Kind] + ", but the appliance does not take the receipt: " +
			p.Error(), Err: err}
	}
	if err != nil {
		return err
	}
	if !ed25519.Verify(d.a.siteKey, append([]byte(job.ReceiptContext), raw...), answer.Signature) {
		return &Failure{Code: "receipt-unsigned", Sentence: accomplished[d.j.Kind] + ", but the appliance's signature under the " +
			"receipt is not by this site's key; look for another appliance on the network"}
	}
	switch {
	case d.j.Kind == job.InventoryOf, d.j.Kind == job.WipeDisk:
		d.a.screen.Say("receipt countersigned: %s", accomplished[d.j.Kind])
	default:
		d.a.screen.Say("receipt countersigned: %d partitions proven on disk %s", len(r.Roots), chosen.Name)
	}
	if len(r.Unproven) > 0 {
		d.a.screen.Say("UNVERIFIED: %d partitions were not read back as a whole, as the deployment says (verify %s)", len(r.Unproven), r.Level)
	}
	return nil
}
