using System.Globalization;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Linux;

/// <summary>A descriptor of open_tree(2) is what opening a name in /proc/self/fd gives, in everything that is done with it.</summary>
public sealed class OpenTreeTests
{
    private const int PathOnly = 0x200000;

    [Fact]
    public void It_means_the_same_file_and_is_good_for_the_same_things()
    {
        using var folder = new TemporaryDirectory();
        string path = folder.File("file");
        File.WriteAllText(path, "content");
        using SafeFileHandle writer = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        int written = (int)writer.DangerousGetHandle();
        SyscallResult tree = Files.OpenTree(written);
        Assert.SkipWhen(tree.Error is Errno.ENOSYS or Errno.EPERM, "NOT CHECKED: open_tree(2) is not to be had here");
        using var opened = new SafeFileHandle(tree.Descriptor, ownsHandle: true);
        using var named = new SafeFileHandle(
            Files.Openat(Files.WorkingDirectory, Name(written), OpenFlags.Path | OpenFlags.CloseOnExec).Descriptor, ownsHandle: true);
        int[] both = [(int)opened.DangerousGetHandle(), (int)named.DangerousGetHandle()];

        // The writer's is gone and the file has another name: nothing of it was needed.
        writer.Dispose();
        File.Move(path, folder.File("moved"));
        Assert.Single(both.Select(descriptor => Info(descriptor, "mnt_id")).Distinct());
        Assert.All(both, descriptor =>
        {
            Assert.True(Descriptors.IsCloseOnExec(descriptor));
            Assert.Equal(PathOnly, Convert.ToInt32(Info(descriptor, "flags"), 8) & PathOnly);
            Assert.Equal(Errno.EBADF, Files.Fchmod(descriptor, 0x1a4).Error);

            using var reader = new SafeFileHandle(
                Files.Openat(Files.WorkingDirectory, Name(descriptor), OpenFlags.ReadWrite).Descriptor, ownsHandle: true);
            Assert.Equal(7, RandomAccess.GetLength(reader));
            Assert.False(Files.Linkat(
                descriptor, "\0"u8, Files.WorkingDirectory, Terminated(folder.File($"link{descriptor}")), AtFlags.EmptyPath).IsError);
            Assert.False(Files.Fchown(descriptor, Credentials.KeepId, Credentials.KeepId).IsError);
        });
        StatxBuffer[] seen = [.. both.Select(descriptor =>
        {
            Assert.False(Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).IsError);
            return status;
        })];
        Assert.Equal(seen[0].Inode, seen[1].Inode);
        Assert.Equal(3U, seen[0].LinkCount);
        KernelFileHandle[] handles = [.. both.Select(descriptor =>
        {
            _ = Files.NameToHandleAt(descriptor, "\0"u8, out KernelFileHandle handle, AtFlags.EmptyPath);
            return handle;
        })];
        Assert.True(KernelFileHandle.BytesOf(ref handles[0]).SequenceEqual(KernelFileHandle.BytesOf(ref handles[1])));
    }

    private static string Info(int descriptor, string name) => File.ReadLines($"/proc/self/fdinfo/{descriptor}")
        .Single(line => line.StartsWith(name + ":", StringComparison.Ordinal))[(name.Length + 1)..].Trim();

    private static byte[] Name(int descriptor) => Terminated(
        string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{descriptor}"));

    private static byte[] Terminated(string text) => [.. System.Text.Encoding.UTF8.GetBytes(text), 0];
}
