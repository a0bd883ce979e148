using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <content>The thread that follows the log of the version table, and what it takes back from the kernel.</content>
internal sealed unsafe partial class BridgeCoherency
{
    // How often the log is looked at: the bound of how long something old may be believed with Coherent. Seldom while nothing happens.
    private const int BusyMilliseconds = 1;
    private const int IdleMilliseconds = 5;
    private const int BusyTurns = 200;

    // For so many turns what the log says of a node may be our own doing; whoever writes without end is told all the same.
    private const int MaxPostponed = 20;

    private void Run()
    {
        var log = new VersionLog(_reader);
        var words = new HashSet<uint>();
        var told = new List<Invalidation>();
        ulong epoch = _reader.Epoch;
        bool wasAlive = false;
        int quiet = 0;
        while (!_isStopped.Wait(quiet < BusyTurns ? BusyMilliseconds : IdleMilliseconds))
        {
            bool isWhole = log.TryRead(words);
            bool isAlive = _reader.IsAlive;
            bool isNew = _reader.Epoch != epoch;
            epoch = _reader.Epoch;
            lock (_gate)
            {
                if (!isWhole || isNew || (wasAlive && !isAlive))
                {
                    TakeAll(told);
                    words.Clear();
                }
                else
                {
                    words.RemoveWhere(word => TryTake(word, told));
                }

                while (_due.TryDequeue(out Invalidation due))
                {
                    told.Add(due);
                }
            }

            wasAlive = isAlive;
            quiet = told.Count == 0 && words.Count == 0 ? quiet + 1 : 0;
            foreach (Invalidation invalidation in told)
            {
                if (_isStopped.IsSet)
                {
                    return;
                }

                Tell(invalidation);
            }

            told.Clear();
        }
    }

    private void TakeAll(List<Invalidation> told)
    {
        foreach (KnownName name in _known.AllNames.ToArray())
        {
            told.Add(new Invalidation(name.Parent.Id, name.Text));
            _known.Remove(name);
        }

        foreach (KnownNode node in _known.All)
        {
            (node.Metadata, node.AttributesVersion, node.Content) = (0, 0, 0);
            told.Add(new Invalidation(node.Id, IsData: true));
        }
    }

    // Takes back what a word that has changed speaks of. False: later, when our own requests are over.
    private bool TryTake(uint word, List<Invalidation> told)
    {
        ulong value = _reader.Load(word);
        bool isDone = true;
        foreach (KnownNode node in _known.NodesOf(word))
        {
            bool isMetadata = word == node.Word;
            if (VersionWord.IsVersion(value) && value == (isMetadata ? node.Metadata : node.Content))
            {
                // Our own change, or one that is known already.
                continue;
            }

            if (node.OwnChanges > 0 && node.Postponed < MaxPostponed)
            {
                node.Postponed++;
                isDone = false;
                continue;
            }

            node.Postponed = 0;
            if (isMetadata)
            {
                if (node.Metadata != 0)
                {
                    told.Add(new Invalidation(node.Id, IsData: false));
                }

                (node.Metadata, node.AttributesVersion) = (0, 0);
            }
            else
            {
                node.Content = 0;
                told.Add(new Invalidation(node.Id, IsData: true));
            }
        }

        foreach (KnownName name in _known.NamesOf(word).ToArray())
        {
            if (IsCurrent(name))
            {
                continue;
            }

            if (name.Parent.OwnChanges > 0 && name.Parent.Postponed < MaxPostponed)
            {
                name.Parent.Postponed++;
                isDone = false;
            }
            else
            {
                name.Parent.Postponed = 0;
                _known.Remove(name);
                told.Add(new Invalidation(name.Parent.Id, name.Text));
            }
        }

        return isDone;
    }

    private void Tell(in Invalidation invalidation)
    {
        if (invalidation.Name is not { } name)
        {
            var node = new FuseNotifyInvalInodeOut { NodeId = invalidation.Node, Offset = invalidation.IsData ? 0 : -1 };
            _tell(FuseNotifyCode.InvalInode, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseNotifyInvalInodeOut>(in node)));
            return;
        }

        var entry = new FuseNotifyInvalEntryOut { Parent = invalidation.Node, NameLength = (uint)name.Length };
        Span<byte> message = stackalloc byte[Unsafe.SizeOf<FuseNotifyInvalEntryOut>() + name.Length + 1];
        message.Clear();
        MemoryMarshal.Write(message, in entry);
        name.CopyTo(message[Unsafe.SizeOf<FuseNotifyInvalEntryOut>()..]);
        _tell(FuseNotifyCode.InvalEntry, message);
    }
}
