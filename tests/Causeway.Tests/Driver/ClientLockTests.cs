// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Diagnostics;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Bridge;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>Locks of open files, against the daemons that people run and against programs of the host.</summary>
public sealed class ClientLockTests
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);
    private static readonly OpenFileOptions s_both = new() { Access = FileAccess.ReadWrite };

    [Theory]
    [InlineData("causeway", true)]
    [InlineData("Debian's virtiofsd", false)]
    public async Task Open_files_lock_ranges_against_each_other(string daemon, bool waits)
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(new VirtioFsClientOptions());
        await using VirtioFsFile one = await client.OpenFileAsync("file", s_both);
        VirtioFsFile two = await client.OpenFileAsync("file", s_both);

        Assert.True(await one.TryLockAsync(LockMode.Exclusive, 0, 100));
        Assert.False(await two.TryLockAsync(LockMode.Exclusive, 50, 10));
        Assert.Equal((LockMode.Exclusive, 0L, 100L), Parts(await two.FindLockAsync(LockMode.Shared, 99)));
        Assert.Null(await two.FindLockAsync(LockMode.Exclusive, 100));
        Assert.True(await two.TryLockAsync(LockMode.Shared, 100));
        Assert.True(await one.TryLockAsync(LockMode.Shared, 100, 1));
        Assert.False(await one.TryLockAsync(LockMode.Exclusive, 100, 1));
        Assert.Equal((LockMode.Shared, 100L, null), Parts(await one.FindLockAsync(LockMode.Exclusive, 100)));
        await one.UnlockAsync(0, 50);
        Assert.True(await two.TryLockAsync(LockMode.Exclusive, 0, 50));
        Assert.False(await two.TryLockAsync(LockMode.Exclusive, 0, 51));

        Task waiting = one.LockAsync(LockMode.Exclusive).AsTask();
        if (!waits)
        {
            // It has no thread to wait with.
            VirtioFsException refused = await Assert.ThrowsAsync<VirtioFsException>(() => waiting.WaitAsync(s_deadline));
            Assert.Equal(Errno.EOPNOTSUPP, refused.Error);
            await two.DisposeAsync();
            Assert.True(await one.TryLockAsync(LockMode.Exclusive));
            return;
        }

        // The lock of the other goes with its file.
        Assert.NotNull(await one.FindLockAsync(LockMode.Exclusive));
        Assert.False(waiting.IsCompleted);
        await two.DisposeAsync();
        await waiting.WaitAsync(s_deadline);
        await using VirtioFsFile three = await client.OpenFileAsync("file", s_both);
        Assert.False(await three.TryLockAsync(LockMode.Shared, 1000, 1));
    }

    [Theory]
    [InlineData("causeway")]
    [InlineData("Debian's virtiofsd")]
    public async Task Open_files_lock_the_whole_against_each_other_and_the_host(string daemon)
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(new VirtioFsClientOptions());
        VirtioFsFile one = await client.OpenFileAsync("file");
        await using VirtioFsFile two = await client.OpenFileAsync("file");

        Assert.True(await one.TryFlockAsync(LockMode.Exclusive));
        Assert.False(await two.TryFlockAsync(LockMode.Shared));
        Assert.Equal(1, Shell.Try(share.Path, "flock --nonblock --shared file true").Status);
        Assert.True(await one.TryFlockAsync(LockMode.Shared));
        Assert.True(await two.TryFlockAsync(LockMode.Shared));
        await two.UnflockAsync();
        Assert.Equal(1, Shell.Try(share.Path, "flock --nonblock file true").Status);

        // It goes with its file.
        await one.DisposeAsync();
        Shell.Run(share.Path, "flock --nonblock file true");
    }

    [Fact]
    public async Task A_wait_for_a_program_of_the_host_ends_by_its_end_or_by_cancelling()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using ForeignDaemon server = ForeignDaemon.Start("causeway", share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(new VirtioFsClientOptions { Writes = WriteMode.Back });
        await using VirtioFsFile file = await client.OpenFileAsync("file", s_both);
        byte[] bytes = new byte[10];
        Assert.Equal(7, await file.ReadAsync(bytes, 0));
        using Process holder = Shell.Start(share.Path, "exec flock file sh -c 'echo mine; read line; printf changed > file'");
        try
        {
            Assert.Equal("mine", holder.StandardOutput.ReadLine());
            using var cancellation = new CancellationTokenSource();
            Task given = file.FlockAsync(LockMode.Exclusive, cancellation.Token).AsTask();
            Assert.False(await file.TryFlockAsync(LockMode.Exclusive));
            Assert.False(given.IsCompleted);
            await cancellation.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given.WaitAsync(s_deadline));

            Task waiting = file.FlockAsync(LockMode.Exclusive).AsTask();
            Assert.False(await file.TryFlockAsync(LockMode.Shared));
            holder.StandardInput.WriteLine();
            await waiting.WaitAsync(s_deadline);
        }
        finally
        {
            holder.Kill(entireProcessTree: true);
            holder.WaitForExit();
        }

        // What was written under the other's lock is seen under ours, and what we write is there when we give it back.
        Assert.Equal(7, await file.ReadAsync(bytes, 0));
        Assert.Equal("changed"u8, bytes.AsSpan(0, 7));
        await file.WriteAsync("C"u8.ToArray(), 0);
        await file.UnflockAsync();
        Assert.Equal("Changed", Shell.Run(share.Path, "flock --nonblock file cat file"));
    }

    [Fact]
    public async Task A_device_that_keeps_no_locks_says_so()
    {
        using var device = new ScriptedDevice((header, arguments) => HostileClientTests.Play("", header, arguments));
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(device);
        await using VirtioFsFile file = await client.OpenFileAsync("file");
        foreach (Func<Task> attempt in (Func<Task>[])
            [
                () => file.LockAsync(LockMode.Shared).AsTask(),
                () => file.TryFlockAsync(LockMode.Shared).AsTask(),
                () => file.FindLockAsync(LockMode.Shared).AsTask(),
            ])
        {
            Assert.Equal(Errno.ENOSYS, (await Assert.ThrowsAsync<VirtioFsException>(attempt)).Error);
        }
    }

    [Fact]
    public async Task A_lock_that_comes_too_late_is_given_back_before_the_file_is_closed()
    {
        using var device = new ScriptedDevice((header, arguments) =>
            header.Opcode == FuseOpcode.SetLkWait ? Answer.Hold : HostileClientTests.Play("locks", header, arguments));
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(device);
        VirtioFsFile file = await client.OpenFileAsync("file");
        using var cancellation = new CancellationTokenSource();
        Task given = file.LockAsync(LockMode.Shared, 10, 20, cancellation.Token).AsTask();
        FuseInHeader Sent(FuseOpcode opcode) => device.Requests.FirstOrDefault(request => request.Header.Opcode == opcode).Header;
        HostileDeviceTests.Until(() => Sent(FuseOpcode.SetLkWait).Unique.Value != 0);
        await cancellation.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given.WaitAsync(s_deadline));
        HostileDeviceTests.Until(() => Sent(FuseOpcode.Interrupt).Unique.Value != 0);

        Task closing = file.DisposeAsync().AsTask();
        Assert.Equal(default, Sent(FuseOpcode.Release));
        device.Release(Sent(FuseOpcode.SetLkWait).Unique, header => Answer.Reply(header, []));
        await closing.WaitAsync(s_deadline);
        HostileDeviceTests.Until(() => Sent(FuseOpcode.SetLk).Unique.Value != 0);
        FuseLkIn unlock = System.Runtime.InteropServices.MemoryMarshal.Read<FuseLkIn>(
            device.Requests.First(request => request.Header.Opcode == FuseOpcode.SetLk).Arguments);
        Assert.Equal((FuseLockType.Unlock, 10ul, 29ul), (unlock.Type, unlock.Start, unlock.End));
        List<FuseOpcode> order = [.. device.Requests.Select(request => request.Header.Opcode)];
        Assert.InRange(order.IndexOf(FuseOpcode.SetLk), 0, order.IndexOf(FuseOpcode.Release));
    }

    private static (LockMode Mode, long Offset, long? Length)? Parts(FileLock? found) =>
        found is { } one ? (one.Mode, one.Offset, one.Length) : null;
}
