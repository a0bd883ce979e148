using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Linux;

public sealed unsafe class IoUringTests
{
    [Fact]
    public void A_ring_that_is_restricted_to_reads_does_nothing_else()
    {
        using IoUring ring = Make();
        Assert.Equal(Errno.Success, ring.RestrictToReads().Error);
        Assert.Equal(Errno.Success, ring.Enable().Error);
        string path = Path.GetTempFileName();
        File.WriteAllText(path, "0123456789");
        using SafeFileHandle file = File.OpenHandle(path);
        byte* first = stackalloc byte[4];
        byte* second = stackalloc byte[100];
        IoVector* pieces = stackalloc IoVector[] { new IoVector(first, 4), new IoVector(second, 100) };

        ring.PrepareRead((int)file.DangerousGetHandle(), pieces, 2, 1, token: 1);
        Assert.Equal(9, Next(ring, 1).Result);
        Assert.Equal("1234"u8, new ReadOnlySpan<byte>(first, 4));
        Assert.Equal("56789"u8, new ReadOnlySpan<byte>(second, 5));

        ring.PrepareCommand(new DeviceCommand((int)file.DangerousGetHandle(), 1, null, 0), [], token: 2);
        Assert.Equal(Errno.EACCES, Next(ring, 2).Error);
        File.Delete(path);
    }

    [Fact]
    public void A_restriction_comes_too_late_once_the_ring_is_used()
    {
        using IoUring ring = Make();
        Assert.Equal(Errno.Success, ring.Enable().Error);
        Assert.True(ring.RestrictToReads().IsError);
    }

    private static IoUring Make()
    {
        SyscallResult result = IoUring.TryCreate(4, 8, out IoUring? ring);
        Assert.SkipWhen(ring is null, $"there is no io_uring here: {result}");
        return ring;
    }

    private static IoCompletion Next(IoUring ring, ulong token)
    {
        Assert.Equal(Errno.Success, ring.Wait(Poll.Forever).Error);
        Assert.True(ring.TryTake(out IoCompletion completion));
        Assert.Equal(token, completion.Token);
        return completion;
    }
}
