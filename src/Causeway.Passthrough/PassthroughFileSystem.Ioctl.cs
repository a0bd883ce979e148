using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// IOCTL: the four that read and set the flags of inodes, and no other. A number of the guest never reaches the host; what is
// forwarded is one of ours, with an argument of ours.
public sealed unsafe partial class PassthroughFileSystem
{
    // What a guest may change. Not, unless the operator says so: immutable and append-only, against which the host has no defence
    // but its administrator. Never what moves an inode out of its project's quota.
    private const uint SettableFlags = InodeFlags.Compress | InodeFlags.Synchronous | InodeFlags.NoDump |
        InodeFlags.NoAccessTime | InodeFlags.NoTail | InodeFlags.DirectorySynchronous | InodeFlags.TopDirectory |
        InodeFlags.NoCopyOnWrite;

    private const uint SettableExtendedFlags =
        InodeFlags.ExtendedSynchronous | InodeFlags.ExtendedNoAccessTime | InodeFlags.ExtendedNoDump;

    private uint MaySet => SettableFlags | (_options.AllowImmutable ? InodeFlags.Immutable | InodeFlags.AppendOnly : 0);

    private uint MaySetExtended => SettableExtendedFlags |
        (_options.AllowImmutable ? InodeFlags.ExtendedImmutable | InodeFlags.ExtendedAppendOnly : 0);

    /// <inheritdoc/>
    public override ValueTask<Result<int>> IoctlAsync(
        NodeId node, FuseIoctlIn arguments, ReadOnlyMemory<byte> input, Memory<byte> output, RequestContext context)
    {
        (int inputSize, int outputSize) = arguments.Command switch
        {
            InodeFlags.GetCommand => (0, sizeof(uint)),
            InodeFlags.SetCommand => (sizeof(uint), 0),
            InodeFlags.GetExtendedCommand => (0, sizeof(ExtendedFlags)),
            InodeFlags.SetExtendedCommand => (sizeof(ExtendedFlags), 0),
            _ => (-1, -1),
        };
        if (inputSize != input.Length || outputSize != output.Length)
        {
            return new(inputSize < 0 ? Errno.ENOTTY : Errno.EINVAL);
        }

        if (_options.ReadOnly && inputSize != 0)
        {
            return new(Errno.EROFS);
        }

        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        if ((file->Flags & OpenFileFlags.Network) != 0)
        {
            WorkerThread.Current.ResumeOwn();
        }

        using VersionChange versions = inputSize != 0 ? BeginChange() : VersionChange.None;
        versions.On(WordOf(file, versions));
        Errno error = arguments.Command switch
        {
            InodeFlags.GetCommand => GetFlags(file->Descriptor, output.Span),
            InodeFlags.SetCommand => SetFlags(file->Descriptor, MemoryMarshal.Read<uint>(input.Span)),
            InodeFlags.GetExtendedCommand => GetExtendedFlags(file->Descriptor, output.Span),
            _ => SetExtendedFlags(file->Descriptor, MemoryMarshal.Read<ExtendedFlags>(input.Span)),
        };
        versions.Settle(Errno.Success);
        _files.EndUse(file);
        return new(error == Errno.Success ? outputSize : Answer(error));
    }

    private static Errno GetFlags(int descriptor, Span<byte> output)
    {
        Errno error = InodeFlags.Get(descriptor, out uint flags).Error;
        MemoryMarshal.Write(output, in flags);
        return error;
    }

    private Errno SetFlags(int descriptor, uint wanted)
    {
        Errno error = InodeFlags.Get(descriptor, out uint flags).Error;
        return error != Errno.Success ? error
            : ((flags ^ wanted) & ~MaySet) != 0 ? Errno.EPERM
            : InodeFlags.Set(descriptor, wanted).Error;
    }

    private static Errno GetExtendedFlags(int descriptor, Span<byte> output)
    {
        Errno error = InodeFlags.GetExtended(descriptor, out ExtendedFlags flags).Error;
        MemoryMarshal.Write(output, in flags);
        return error;
    }

    private Errno SetExtendedFlags(int descriptor, ExtendedFlags wanted)
    {
        Errno error = InodeFlags.GetExtended(descriptor, out ExtendedFlags flags).Error;
        if (error != Errno.Success)
        {
            return error;
        }

        bool isAllowed = ((flags.Flags ^ wanted.Flags) & ~MaySetExtended) == 0 &&
            flags.ProjectId == wanted.ProjectId && flags.ExtentSize == wanted.ExtentSize &&
            flags.CopyExtentSize == wanted.CopyExtentSize;
        flags.Flags = wanted.Flags;
        return isAllowed ? InodeFlags.SetExtended(descriptor, flags).Error : Errno.EPERM;
    }
}
